#!/bin/sh
# The main job on real data: see test/demo.
set -eu
cd "$(dirname "$0")/.."
CGO_ENABLED=0 "${GO:-go}" build -trimpath -o bin/demo ./test/demo
exec bin/demo --manada "$PWD/bin/manada" "$@"
