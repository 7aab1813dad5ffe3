#!/bin/bash
# The stanza is made by itself at the first start; this may be run at any time.
exec pgbackrest --stanza=demo stanza-create "$@"
