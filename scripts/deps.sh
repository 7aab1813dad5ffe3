#!/bin/sh
# Installs what building, the demo and the tests need on Debian 12, and nothing
# where nothing is missing. Debian's own cluster on 5432 is not made; one that
# exists is left alone.
#
#   scripts/deps.sh run     what a herd needs: PostgreSQL 15
#   scripts/deps.sh test    and what the tests compare with: pgbackrest, iproute2 ...,
#                           and PostgreSQL's own tests (postgres-tests.sh)
#   scripts/deps.sh drivers the drivers of other languages, into bin/drivers where they are no packages
#   scripts/deps.sh docker  what the images and the guide need; nothing is started
set -eu

run_packages="postgresql-15"
test_packages="pgbackrest repmgr postgresql-15-repmgr iproute2 procps nftables zstd gcc libc6-dev"  # gcc: the race detector

mode=${1:-run}
case "$mode" in
run) want="$run_packages" ;;
test) want="$run_packages $test_packages" ;;
drivers)
	want="$run_packages python3-psycopg2 python3-psycopg libpostgresql-jdbc-java"
	command -v javac >/dev/null 2>&1 || want="$want default-jdk-headless"
	command -v npm >/dev/null 2>&1 || want="$want nodejs npm"
	;;
docker)
	want=""
	# An engine from elsewhere will do.
	command -v dockerd >/dev/null 2>&1 || docker version >/dev/null 2>&1 || want="docker.io iptables"
	command -v docker-compose >/dev/null 2>&1 || want="$want docker-compose"
	command -v debootstrap >/dev/null 2>&1 || want="$want debootstrap"
	[ -n "$want" ] || exit 0
	;;
*)
	echo "deps.sh: usage: scripts/deps.sh run|test|drivers|docker" >&2
	exit 2
	;;
esac

command -v dpkg-query >/dev/null 2>&1 || {
	echo "deps.sh: this is no Debian; install yourself what is missing of: $want" >&2
	exit 0
}

missing=""
for p in $want; do
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing="$missing $p"
done
finish() {
	here=$(cd "$(dirname "$0")/.." && pwd)
	[ "$mode" != test ] || exec "$here/scripts/postgres-tests.sh"
	if [ "$mode" = drivers ]; then
		mkdir -p "$here/bin/drivers"
		cp -r "$here/test/drivers/node" "$here/bin/drivers/"
		cd "$here/bin/drivers/node" && npm install --silent --no-audit --no-fund
	fi
	exit 0
}
[ -n "$missing" ] || finish

as_root=""
if [ "$(id -u)" != 0 ]; then
	if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
		as_root="sudo"
	else
		echo "deps.sh: missing:$missing" >&2
		echo "hint: run  apt-get install$missing  as root, or this again as root" >&2
		exit 1
	fi
fi

# Before the first PostgreSQL is installed: no cluster of Debian's on 5432.
case "$missing" in
*postgresql-15*)
	conf=/etc/postgresql-common/createcluster.conf
	if [ -z "$(ls -A /etc/postgresql 2>/dev/null)" ] && ! grep -qs '^create_main_cluster *= *false' "$conf"; then
		$as_root mkdir -p /etc/postgresql-common
		echo 'create_main_cluster = false' | $as_root tee -a "$conf" >/dev/null
	fi
	;;
esac

echo "deps.sh: installing$missing" >&2
log=$(mktemp)
install() {
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
		-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold $missing >"$log" 2>&1
}
# shellcheck disable=SC2086
install || {
	$as_root apt-get update -q >>"$log" 2>&1 || true
	install
} || {
	tail -n 20 "$log" >&2
	rm -f "$log"
	echo "deps.sh: apt-get could not install$missing" >&2
	exit 1
}
rm -f "$log"
finish
