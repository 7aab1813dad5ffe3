#!/bin/bash
exec pgbackrest --stanza=demo --type=full backup "$@"
