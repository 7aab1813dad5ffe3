#!/bin/sh
# Makes a Debian root with the PgBouncer and the pgpool-II that the bench runs
# beside the proxy.
#
#   bench/proxy/rivals.sh DIR
#
# As root. DIR stays as it is for the next time.
set -eu
dir=${1:?usage: rivals.sh DIR}
[ -x "$dir/usr/sbin/pgbouncer" ] && [ -x "$dir/usr/sbin/pgpool" ] && exit 0
command -v debootstrap >/dev/null || apt-get install -y -q --no-install-recommends debootstrap
mirror=$(awk '/^URIs:/{print $2; exit}' /etc/apt/sources.list.d/debian.sources 2>/dev/null || true)
[ -n "$mirror" ] || mirror=$(awk '$1=="deb"{print $2; exit}' /etc/apt/sources.list)
[ -e "$dir/etc/debian_version" ] || debootstrap --variant=minbase sid "$dir" "$mirror"
echo 'Acquire::Check-Valid-Until "false";' >"$dir/etc/apt/apt.conf.d/99valid"
cp /etc/resolv.conf "$dir/etc/resolv.conf"
mount -t proc proc "$dir/proc" # the packages' scripts want it
trap 'umount "$dir/proc"' EXIT
chroot "$dir" sh -c 'apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends ca-certificates pgbouncer pgpool2'
chroot "$dir" sh -c "pgbouncer --version; pgpool --version"
