#!/bin/sh
# Unpack RabbitMQ 4 into a directory of the cache, without installing it, and print the directory.
#
# The packages are those of rabbitmq4.txt, of Debian 13, checked by their hashes. They are about
# 50 MB, downloaded once; a mirror that has only newer ones is followed by Debian's archive.
set -eu
tools=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/saga-engine
root=$cache/rabbitmq-$(sha256sum "$tools/rabbitmq4.txt" | cut -c1-12)
if [ -e "$root/etc/hosts" ]; then
    echo "$root"
    exit 0
fi
command -v dpkg-deb >/dev/null || { echo "RabbitMQ 4 needs dpkg-deb to be unpacked." >&2; exit 1; }
echo "Fetching RabbitMQ 4 for the tests ..." >&2
packages=$cache/packages
mkdir -p "$packages"
rm -rf "$root.part"
mkdir -p "$root.part"
while read -r hash path; do
    package=$packages/${path##*/}
    escaped=$(echo "$path" | sed 's/+/%2b/g; s/~/%7e/g')
    for mirror in http://deb.debian.org/debian https://snapshot.debian.org/archive/debian/20261130T000000Z; do
        echo "$hash  $package" | sha256sum --check --status 2>/dev/null && break
        curl --fail --silent --show-error --location --max-time 120 --output "$package" "$mirror/$escaped" || true
    done
    echo "$hash  $package" | sha256sum --check --status || { echo "$path was not downloaded." >&2; exit 1; }
    dpkg-deb -x "$package" "$root.part"
done <"$tools/rabbitmq4.txt"
echo "127.0.0.1 localhost" >"$root.part/etc/hosts"
mv "$root.part" "$root"
echo "$root"
