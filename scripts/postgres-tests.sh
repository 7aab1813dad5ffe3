#!/bin/sh
# Brings PostgreSQL's own tests into bin/postgres-tests: the regression suite, the
# specs of the isolation tester and libpq_pipeline, of the very version that is
# installed, out of Debian's source package. Needs no rights and installs nothing:
# the headers are unpacked, not installed.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
out=$root/bin/postgres-tests
version=$(dpkg-query -W -f '${source:Version}' postgresql-15)
[ "$(cat "$out/VERSION" 2>/dev/null)" = "$version" ] && exit 0

work=$(mktemp -d)
log=$work/log
trap 'rm -rf "$work"' EXIT
fail() {
	tail -n 20 "$log" >&2
	echo "postgres-tests.sh: $1" >&2
	exit 1
}

# The same sources as apt's, of source packages too, with lists of their own.
mkdir -p "$work/sources" "$work/lists/partial" "$work/cache/archives/partial"
for f in /etc/apt/sources.list.d/debian.sources; do
	[ -e "$f" ] && sed 's/^Types:.*/Types: deb deb-src/' "$f" >"$work/sources/debian.sources"
done
[ ! -e /etc/apt/sources.list ] || sed -n 's/^deb \(.*debian.*\)/deb \1\ndeb-src \1/p' /etc/apt/sources.list >"$work/sources/debian.list"
apt() {
	(cd "$work" && apt-get -q -o Acquire::Languages=none -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/sources" \
		-o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User="" "$@" >>"$log" 2>&1)
}
echo "postgres-tests.sh: fetching the tests of PostgreSQL $version" >&2
apt update || fail "apt-get update of source packages failed"
apt source --download-only "postgresql-15=$version" || fail "there is no source package of PostgreSQL $version"
apt download "postgresql-server-dev-15=$version" "libpq-dev=$version" || fail "there are no headers of PostgreSQL $version"

cd "$work"
for f in *.deb; do dpkg-deb -x "$f" dev; done
tar xf postgresql-15_*.orig.tar.* --wildcards '*/src/test/regress' '*/src/test/isolation' '*/src/test/modules/libpq_pipeline'
mv postgresql-15.*/src/test tests
include="-I dev/usr/include/postgresql/15/server -I dev/usr/include/postgresql/internal -I dev/usr/include/postgresql"
lib=dev/usr/lib/postgresql/15/lib
# shellcheck disable=SC2086
{
	cc -O1 -shared -fPIC -w $include tests/regress/regress.c -o tests/regress/regress.so &&
		cc -O1 -w $include tests/modules/libpq_pipeline/libpq_pipeline.c -o tests/modules/libpq_pipeline/libpq_pipeline \
			-L "$lib" -lpgcommon -lpgport -l:libpq.so.5
} >>"$log" 2>&1 || fail "cc could not build what the tests need"

# The suite looks for these beside its own library.
cp /usr/lib/postgresql/15/lib/refint.so /usr/lib/postgresql/15/lib/autoinc.so tests/regress/

rm -rf "$out"
mkdir -p "$out"
mv tests/regress tests/isolation tests/modules/libpq_pipeline "$out"
chmod -R a+rX "$out"
echo "$version" >"$out/VERSION"
