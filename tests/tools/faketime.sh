#!/bin/sh
# Install libfaketime, with which the fault suite shifts the clock of a process.
set -eu
ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || sh "$(dirname "$0")/debian.sh" libfaketime
