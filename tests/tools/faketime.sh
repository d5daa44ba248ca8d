#!/bin/sh
# libfaketime, with which the fault suite shifts a process's clock.
set -eu
ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || sh "$(dirname "$0")/debian.sh" libfaketime
