#!/bin/bash
exec pgbackrest --stanza=demo --type=diff backup "$@"
