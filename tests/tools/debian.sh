#!/bin/sh
# Install Debian packages as root or with sudo; never start a service of the system.
#
#     sh tests/tools/debian.sh PACKAGE ...
#
# Without these rights it does nothing: the tests that need the packages are skipped with a message.
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
# With an init system, policy-rc.d prevents a package from starting its service.
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
