#!/bin/bash
# install.sh VENV FILE: a virtual environment with the pinned packages of FILE. Its bin/.installed is there when all are;
# an installation that was interrupted is started over.
# install.sh VENV FILE FOLDER: these packages alone, into FOLDER, by an environment that is complete.
set -euo pipefail
venv=$1 pins=$2 folder=${3:-}

pip_install() {
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$pins" "$@"
}

if [ -n "$folder" ]; then
    pip_install --no-deps --upgrade --target "$folder"
    exit
fi

if [ -e "$venv/bin/.installing" ] || ! "$venv/bin/python" -c 'import pip' 2> /dev/null; then
    python3 -m venv --clear "$venv" || {
        rm -rf "$venv"
        echo "python3 cannot make virtual environments; on Debian: apt-get install python3-venv" >&2
        exit 1
    }
fi
echo "Installing the pinned Python packages into $venv"
touch "$venv/bin/.installing"
pip_install
touch "$venv/bin/.installing"
mv "$venv/bin/.installing" "$venv/bin/.installed"
