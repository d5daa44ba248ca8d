#!/bin/sh
# Install libfaketime, with which the fault suite shifts a process's clock, where that is allowed.
set -eu
ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 && exit 0
command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || exit 0
echo "Installing libfaketime for the tests ..." >&2
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libfaketime >/dev/null
