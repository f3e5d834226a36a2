#!/bin/sh
# Makes the checkout ready to use: Debian packages, .venv, nkform (editable) and the development tools.
#
# Run it through `make setup`. It may install Debian packages (as root), and otherwise writes only into .venv.
# When nothing has changed since the last time it does nothing, in a few milliseconds.
set -eu

cd "$(dirname "$0")/.."
venv=.venv
stamp=$venv/.nkform-setup

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# The packages named in a requirements/apt*.txt file that are not installed.
missing_packages() {
    sed 's/#.*//' "$1" | while read -r package; do
        [ -n "$package" ] || continue
        case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) in
            installed) ;;
            *) printf '%s ' "$package" ;;
        esac
    done
}

install_debian_packages() {
    if ! command -v dpkg-query >/dev/null; then
        say "not a Debian system: make sure that it has what requirements/apt.txt lists"
        return
    fi
    missing=$(missing_packages "$1")
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" != 0 ]; then
        die "these Debian packages are missing; run as root:  apt-get install $missing"
    fi
    # One at a time: several labs may start at once on a new machine, and each of them finds the same packages missing.
    (
        flock 9
        missing=$(missing_packages "$1")
        [ -n "$missing" ] || exit 0
        say "installing Debian packages: $missing"
        export DEBIAN_FRONTEND=noninteractive
        # The package lists may be absent or old, and refreshing them takes long: so try first, and refresh only then.
        get $missing 2>/dev/null || { apt-get update -qq 9>&- && get $missing; } || die "apt-get could not install: $missing"
    ) 9>/var/cache/apt/nkform-setup.lock
}

# Waits for whoever else installs something, such as a new machine's unattended upgrades (seconds).
get() {
    apt-get install -qq -y --no-install-recommends -o DPkg::Lock::Timeout=600 "$@" >/dev/null 9>&-
}

# Debian's own interpreter where there is one: python3-bpfcc belongs to it and to no other.
find_python() {
    for python in /usr/bin/python3 python3; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    die "no Python 3.11 or newer found, neither /usr/bin/python3 nor on PATH"
}

make_venv() {
    say "making $venv with $1"
    # Anew rather than updated: `--ignore-installed`, which puts the locked versions into .venv even where Debian's Python has
    # the same package, would leave files of the old versions behind.
    "$1" -m venv --clear --system-site-packages "$venv"
    "$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-warn-script-location \
        --ignore-installed --no-deps --require-hashes -r requirements/lock.txt
    # The build tools are in the lock, so nothing is fetched for the build.
    "$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
    "$venv/bin/python" -c 'import yaml; yaml.CSafeLoader' || die "PyYAML came without libyaml"
}

# `tools/setup.sh --packages FILE` only installs what FILE lists; tools/lab uses it.
if [ "${1:-}" = --packages ]; then
    install_debian_packages "$2"
    exit
fi

install_debian_packages requirements/apt.txt
python=$(find_python)
# What .venv was made from; the folder is in it because a virtual environment cannot be moved.
inputs=$( { echo "$PWD"; "$python" --version; cat pyproject.toml requirements/lock.txt tools/setup.sh; } | sha256sum)
if [ "$(cat "$stamp" 2>/dev/null)" != "$inputs" ]; then
    make_venv "$python"
    printf '%s\n' "$inputs" >"$stamp"
    say "done: $venv/bin/nkform"
fi
