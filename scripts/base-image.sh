#!/bin/sh
# Makes the image debian:bookworm-slim of Debian's packages, where it cannot be
# pulled: debootstrap from the mirror of this machine's apt. Nothing is done
# where the image is there or a pull brings it.
set -eu
image="${1:-debian:bookworm-slim}"

docker image inspect "$image" >/dev/null 2>&1 && exit 0
if [ -z "${MANADA_NO_PULL:-}" ] && timeout 60 docker pull -q "$image" >/dev/null 2>&1; then
	exit 0
fi

# URI of the first binary source for bookworm, in either format of apt.
mirror="${MANADA_MIRROR:-$(apt-get indextargets --format '$(SITE) $(RELEASE) $(CREATED_BY)' 2>/dev/null |
	awk '$2 == "bookworm" && $3 == "Packages" { print $1; exit }')}"
[ -n "$mirror" ] || {
	echo "base-image.sh: apt knows no mirror for bookworm; set MANADA_MIRROR" >&2
	exit 1
}
command -v debootstrap >/dev/null || {
	echo "base-image.sh: debootstrap is missing: apt-get install debootstrap" >&2
	exit 1
}
echo "base-image.sh: making $image of Debian's packages" >&2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
debootstrap --variant=minbase bookworm "$dir/root" "$mirror" >"$dir/log" 2>&1 || {
	tail -n 20 "$dir/log" >&2
	exit 1
}
rm -rf "$dir"/root/var/cache/apt/archives/*.deb "$dir"/root/var/lib/apt/lists/* "$dir"/root/var/log/* \
	"$dir"/root/usr/share/doc/* "$dir"/root/usr/share/man/* "$dir"/root/usr/share/info/* "$dir"/root/usr/share/locale/*
tar -C "$dir/root" -c . | docker import -c 'CMD ["bash"]' - "$image" >/dev/null
