#!/bin/sh
# Create a virtual environment; on a Debian without python3-venv, install it or print how.
set -eu
python=$1 venv=$2
[ -x "$venv/bin/pip" ] && exit 0
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2
    exit 1
fi
"$python" -m venv "$venv" >/dev/null 2>&1 && exit 0
rm -rf "$venv"
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing python3-venv ..." >&2
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null
    "$python" -m venv "$venv" && exit 0
fi
echo "Python cannot create a virtual environment. Install it: sudo apt-get install python3-venv" >&2
exit 1
