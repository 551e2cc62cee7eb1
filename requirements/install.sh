#!/bin/bash
# install.sh VENV FILE: a virtual environment with the pinned packages of FILE. Its bin/.installed is there when all are;
# an installation that was interrupted is started over.
set -euo pipefail
venv=$1 pins=$2

if [ -e "$venv/bin/.installing" ] || ! "$venv/bin/python" -c 'import pip' 2> /dev/null; then
    python3 -m venv --clear "$venv" || {
        rm -rf "$venv"
        echo "python3 cannot make virtual environments; on Debian: apt-get install python3-venv" >&2
        exit 1
    }
fi
echo "Installing the pinned Python packages into $venv"
touch "$venv/bin/.installing"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$pins"
touch "$venv/bin/.installing"
mv "$venv/bin/.installing" "$venv/bin/.installed"
