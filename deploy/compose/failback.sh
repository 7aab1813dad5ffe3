#!/bin/bash
# Makes the original master the primary again once it has recovered.
set -eu
docker start master
exec docker exec slave manada failback master-1 "$@"
