#!/bin/sh
# Put promtool into the directory $1, out of Debian's package and without installing that.
# Where it cannot be had the test that needs it is skipped (on CI: fails), and says so itself.
set -eu
bin=${1:?the directory to put promtool into}
[ -x "$bin/promtool" ] && exit 0
command -v promtool >/dev/null && exit 0
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "Fetching promtool for the tests ..." >&2
# As an ordinary user the lists of packages are what the machine has.
if ! apt-cache show prometheus >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    apt-get update -qq || exit 0
fi
chmod 755 "$work"
(cd "$work" && apt-get download -qq -o APT::Sandbox::User=root prometheus >/dev/null 2>&1) || exit 0
dpkg-deb -x "$work"/prometheus_*.deb "$work/unpacked"
cp "$work/unpacked/usr/bin/promtool" "$bin/promtool"
