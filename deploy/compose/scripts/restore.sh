#!/bin/bash
# Sets the running herd back: to the newest point, or to the one that is given,
#   restore.sh --type=time --target='2026-11-23 02:08:33+00'
exec manada restore --herd "$@"
