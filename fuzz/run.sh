#!/usr/bin/env bash
# Fuzzes every target, or those that are named, one after the other. Stops at the first that fails; its input is then in
# fuzz/artifacts. New inputs go to fuzz/target/corpus, so that the corpus in the repository stays small.
#
# Without a sanitizer, as there is no unsafe code here, and the instrumentation alone needs no nightly compiler.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly seconds=${FUZZ_SECONDS:-400}
triple=$(rustc -vV | sed -n 's/^host: //p')

.venv/bin/cargo-fuzz build --sanitizer none --target "$triple"
targets=("$@")
[ $# -gt 0 ] || targets=($(.venv/bin/cargo-fuzz list))
for target in "${targets[@]}"; do
    grown=fuzz/target/corpus/$target
    mkdir -p "$grown" "fuzz/artifacts/$target"
    echo "== $target"
    "fuzz/target/$triple/release/$target" "$grown" "fuzz/corpus/$target" \
        -max_len=1024 -max_total_time="$seconds" -print_final_stats=1 -artifact_prefix="fuzz/artifacts/$target/"
done
