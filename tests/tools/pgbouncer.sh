#!/bin/sh
# Install PgBouncer, which the tests run in front of their PostgreSQL.
set -eu
[ -x /usr/sbin/pgbouncer ] || sh "$(dirname "$0")/debian.sh" pgbouncer
