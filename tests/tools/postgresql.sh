#!/bin/sh
# A PostgreSQL that knows TLS, which the one in the wheel does not.
set -eu
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || sh "$(dirname "$0")/debian.sh" postgresql
