#!/bin/sh
# Run a command in the file system of the directory $1, with the /dev, /proc and /tmp of this machine.
#
#     sh tests/tools/enter_root.sh DIRECTORY COMMAND ...
#
# The mounts are in a namespace of their own, and end with the command, whose process id is this one.
set -eu
if [ -z "${IN_NAMESPACE:-}" ]; then
    [ "$(id -u)" = 0 ] || map=--map-root-user
    IN_NAMESPACE=1 exec unshare --mount ${map:-} sh "$0" "$@"
fi
unset IN_NAMESPACE
for directory in dev proc tmp; do
    mkdir -p "$1/$directory"
    mount --rbind "/$directory" "$1/$directory"
done
exec chroot "$@"
