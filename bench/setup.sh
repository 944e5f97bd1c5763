#!/usr/bin/env bash
# Installs the programs that Tidewire is measured beside. Does only what is missing.
#
#   from         what                                   where
#   apt          nginx with the nchan module            the machine
#   crates.io    durable-streams (pinned)               bench/.tools
set -euo pipefail
cd "$(dirname "$0")"

readonly durable_streams=0.1.5
readonly nchan=/usr/lib/nginx/modules/ngx_nchan_module.so

say() { echo "bench/setup: $*"; }
fail() { echo "bench/setup: $*" >&2; exit 1; }

if ! command -v nginx >/dev/null || [ ! -f $nchan ]; then
    command -v apt-get >/dev/null || fail "install nginx and its nchan module ($nchan) by hand and run this again"
    as_root=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || fail "run as root: apt-get install nginx libnginx-mod-nchan"
        as_root=(sudo)
    fi
    say "apt: installing nginx, libnginx-mod-nchan"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends nginx libnginx-mod-nchan >/dev/null
fi

if ! grep -qs "^\"durable-streams $durable_streams " .tools/.crates.toml; then
    say "cargo: installing durable-streams $durable_streams"
    cargo install --quiet --locked --root .tools "durable-streams@$durable_streams"
fi
