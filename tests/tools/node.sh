#!/bin/sh
# Install Node.js and amqplib for the foreign participant in tests/foreign, where that is allowed.
set -eu
here=$(dirname "$0")/../foreign
if ! command -v npm >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing nodejs and npm for the tests ..." >&2
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null
fi
command -v npm >/dev/null || exit 0
[ -d "$here/node_modules/amqplib" ] || (cd "$here" && npm ci --silent --no-audit --no-fund)
