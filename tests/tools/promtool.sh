#!/bin/sh
# Extract promtool from its Debian package into the directory $1, without installing the package.
# If it cannot be downloaded, the test that needs it is skipped with a message (on CI it fails).
set -eu
bin=${1:?the directory to put promtool into}
[ -x "$bin/promtool" ] && exit 0
command -v promtool >/dev/null && exit 0
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "Fetching promtool for the tests ..." >&2
# Only root can update the package lists.
if ! apt-cache show prometheus >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    apt-get update -qq || exit 0
fi
chmod 755 "$work"
(cd "$work" && apt-get download -qq -o APT::Sandbox::User=root prometheus >/dev/null 2>&1) || exit 0
dpkg-deb -x "$work"/prometheus_*.deb "$work/unpacked"
cp "$work/unpacked/usr/bin/promtool" "$bin/promtool"
