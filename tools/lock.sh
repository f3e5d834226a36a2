#!/bin/sh
# Resolves pyproject.toml and requirements/dev.in to exact versions with hashes: requirements/lock.txt.
#
# One file serves all supported Pythons: where they need different packages, the lines carry environment markers.
set -eu

cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq --disable-pip-version-check uv

{
    echo "# Made by \`make lock\` from pyproject.toml and requirements/dev.in; not to be edited by hand."
    # --no-config and no index URL: the lock must not carry anything of the machine that it was made on.
    "$work/venv/bin/uv" --quiet pip compile --no-config --universal --python-version 3.11 --generate-hashes --upgrade \
        --no-header --no-emit-index-url --no-emit-find-links pyproject.toml requirements/dev.in
} >"$work/lock.txt"
if grep -nE '://|^-' "$work/lock.txt"; then
    echo "lock: the lines above name a package index; requirements/lock.txt is unchanged" >&2
    exit 1
fi
mv "$work/lock.txt" requirements/lock.txt
