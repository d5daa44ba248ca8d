#!/bin/sh
# Install Node.js and amqplib for the foreign participant in tests/foreign.
set -eu
here=$(dirname "$0")/../foreign
command -v npm >/dev/null || sh "$(dirname "$0")/debian.sh" nodejs npm
command -v npm >/dev/null || exit 0
[ -d "$here/node_modules/amqplib" ] || (cd "$here" && npm ci --silent --no-audit --no-fund)
