#!/bin/sh
# Install a PostgreSQL with TLS, which the one in the wheel lacks.
set -eu
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || sh "$(dirname "$0")/debian.sh" postgresql
