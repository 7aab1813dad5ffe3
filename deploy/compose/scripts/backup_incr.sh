#!/bin/bash
exec pgbackrest --stanza=demo --type=incr backup "$@"
