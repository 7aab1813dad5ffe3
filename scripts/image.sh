#!/bin/sh
# Builds the image manada:15 and the two of deploy/compose over it. bin/manada
# has been built; the base image is pulled, or made of Debian's packages.
set -eu
cd "$(dirname "$0")/.."
tag="${MANADA_IMAGE:-manada:15}"
scripts/base-image.sh debian:bookworm-slim
# A proxy that this machine's apt needs is needed in the build, too; Docker does
# not keep these arguments in the image.
http=$(apt-config dump --format '%v' Acquire::http::Proxy 2>/dev/null || true)
docker build --quiet --network "${MANADA_BUILD_NETWORK:-host}" --target host \
	${http:+--build-arg "http_proxy=$http"} -t "$tag" .
docker build --quiet -t custom-postgresql-repmgr:15 deploy/compose/custom-postgres
docker build --quiet -t custom-pgbackrest:15 deploy/compose/pgbackrest
