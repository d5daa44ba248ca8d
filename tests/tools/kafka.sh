#!/bin/sh
# Install noida-db, which speaks Kafka's protocol, into the environment of the programs in $1.
# If it cannot be downloaded, the tests that need it are skipped with a message (on CI they fail).
set -eu
bin=${1:?the directory of the environment\'s programs}
"$bin/python" -c 'import noida_db' 2>/dev/null && exit 0
"$bin/python" -m pip install -q --disable-pip-version-check --no-deps --only-binary :all: \
    --require-hashes -r "$(dirname "$0")/kafka.txt" || exit 0
