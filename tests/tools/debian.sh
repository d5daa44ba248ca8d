#!/bin/sh
# Install packages of Debian's where that is allowed; never start a server of the system's own.
#
#     sh tests/tools/debian.sh PACKAGE ...
#
# Where it is not allowed nothing happens: the tests that need them are skipped, and say so.
set -eu
command -v apt-get >/dev/null || exit 0
if [ "$(id -u)" = 0 ]; then
    as_root=
elif sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    exit 0
fi
echo "Installing $* for the tests ..." >&2
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
    "$@" >/dev/null || status=$?
[ -z "$made" ] || $as_root rm -f "$policy"
exit $status
