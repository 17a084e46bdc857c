# shellcheck shell=bash
# Shared by the findings: sourced, never run by itself.
#
# A finding defines `fetch` (what to download into a temporary folder) and `check` (what to run and compare), then calls
# `finding` or `finding isolated`. With `isolated`, check runs in network, mount and process namespaces of its own,
# which end with it. Nothing is installed; the temporary folder is removed at the end.

set -euo pipefail
script=$(readlink -f "$0")

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 2
}

# same WHAT EXPECTED SEEN: stops with "CHANGED" where the software no longer behaves as described.
same() {
    if [ "$2" != "$3" ]; then
        printf 'CHANGED: %s\n  described: %s\n  seen:      %s\n' "$1" "$2" "$3" >&2
        exit 1
    fi
    printf 'as described: %s: %s\n' "$1" "${3//$'\n'/ | }"
}

# deb PACKAGE...: unpacks Debian packages, with those of their dependencies that the system lacks.
deb() {
    local lacking file package
    command -v apt-get >/dev/null || fail 'apt-get is missing: this script needs Debian'
    apt-cache show "$@" >/dev/null 2>&1 || apt-get -qq update || fail 'apt-get update failed'
    lacking=$(apt-get -s -q --no-install-recommends install "$@" 2>/dev/null | awk '/^Inst/ { print $2 }') ||
        fail "apt-get finds no way to install $*"
    mkdir -p "$tmp/debs" "$tmp/root"
    if [ -n "$lacking" ]; then
        # shellcheck disable=SC2086 # a list of names
        (cd "$tmp/debs" && apt-get -qq -o APT::Sandbox::User=root download $lacking) || fail "apt-get download $lacking"
        for file in "$tmp"/debs/*.deb; do
            dpkg -x "$file" "$tmp/root"
        done
    fi
    for package in "$@"; do
        file=$(find "$tmp/debs" -name "${package}_*.deb")
        printf 'package: %s %s\n' "$package" \
            "$(if [ -n "$file" ]; then dpkg-deb -f "$file" Version; else dpkg-query -W -f '${Version}' "$package"; fi)"
    done
}

# pip NAME==VERSION...: makes a virtual environment that holds them.
pip() {
    python3 -m venv "$tmp/venv" 2>/dev/null || fail 'python3 -m venv does not work: install python3 and python3-venv'
    "$tmp/venv/bin/pip" -q --no-cache-dir install "$@" || fail "pip cannot install $*"
    printf 'package: %s\n' "$@"
}

# crate LINE...: makes a Cargo project with these lines as its dependencies and standard input as its main.rs.
crate() {
    command -v cargo >/dev/null || fail 'cargo is missing: install Rust (1.85 or later)'
    mkdir -p "$tmp/crate/src"
    cat >"$tmp/crate/src/main.rs"
    printf '%s\n' '[package]' 'name = "finding"' 'version = "0.0.0"' 'edition = "2021"' '[dependencies]' "$@" \
        '[workspace]' >"$tmp/crate/Cargo.toml"
    (cd "$tmp/crate" && CARGO_HOME=$tmp/cargo nice -n 10 cargo build -q) || fail "cargo cannot build with $*"
    printf 'crate: %s\n' "$@"
}

# crate_output: what the Cargo project prints.
crate_output() {
    "$tmp/crate/target/debug/finding"
}

finding() {
    if [ "${FINDING_FOLDER:-}" ]; then
        tmp=$FINDING_FOLDER
    else
        tmp=$(mktemp -d)
        trap 'rm -rf "$tmp"' EXIT
        fetch
    fi
    if [ "${1:-}" = isolated ] && [ -z "${FINDING_FOLDER:-}" ]; then
        [ "$(id -u)" = 0 ] || fail 'this script needs root, for namespaces of its own'
        FINDING_FOLDER=$tmp unshare --net --mount --pid --fork --kill-child --mount-proc -- bash "$script"
        return
    fi
    if [ "${1:-}" = isolated ]; then
        ip link set lo up
    fi
    if [ -d "$tmp/root" ]; then
        export PATH=$tmp/root/usr/bin:$tmp/root/usr/sbin:$tmp/root/sbin:$PATH
        local libraries
        libraries=$(find "$tmp/root" -type d -path '*lib/*-linux-gnu' -printf '%p:')
        if [ -n "$libraries" ]; then
            export LD_LIBRARY_PATH=${libraries%:}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
        fi
    fi
    if [ -d "$tmp/venv" ]; then
        export PATH=$tmp/venv/bin:$PATH
    fi
    export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH
    PYTHONPATH=$(dirname "$script")/lib # for pcapng_maker.py
    cd "$tmp"
    check
}
