#!/bin/sh
# Install a PostgreSQL that knows TLS, which the one in the wheel does not, where that is allowed;
# never start a server of the system's own. Where it is not allowed the tests that need it are
# skipped, and say so themselves.
set -eu
found() { ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; }
found && exit 0
command -v apt-get >/dev/null || exit 0
if [ "$(id -u)" = 0 ]; then
    as_root=
elif sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    exit 0
fi
echo "Installing postgresql for the tests ..." >&2
$as_root apt-get update -qq
# Without an init system nothing starts; with one, policy-rc.d keeps the package from starting it.
policy=/usr/sbin/policy-rc.d
made=
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
    made=1
fi
status=0
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    postgresql >/dev/null || status=$?
[ -z "$made" ] || $as_root rm -f "$policy"
exit $status
