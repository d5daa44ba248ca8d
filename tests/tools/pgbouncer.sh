#!/bin/sh
# PgBouncer, of which the tests run one before their PostgreSQL.
set -eu
[ -x /usr/sbin/pgbouncer ] || sh "$(dirname "$0")/debian.sh" pgbouncer
