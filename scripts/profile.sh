#!/usr/bin/env bash
# Has the server and its agents work under load, built so that they count what they do, and writes
# what they counted to bench/dist.profdata, which `make dist` optimises by. Needs the component
# llvm-tools of rustup, or the llvm-profdata of the same LLVM in LLVM_PROFDATA.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo="${CARGO:-cargo}"
target="${CARGO_TARGET_DIR:-target}"
host="$(rustc -vV | sed -n 's/^host: //p')"
profdata="${LLVM_PROFDATA:-$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata}"
if ! command -v "$profdata" >/dev/null; then
  echo "missing: llvm-profdata; rustup component add llvm-tools, or set LLVM_PROFDATA" >&2
  exit 1
fi

mkdir -p "$target"
counts="$(cd "$target" && pwd)/profile"
rm -rf "$counts"
RUSTFLAGS="${RUSTFLAGS:-} -Cprofile-generate=$counts" "$cargo" build --profile dist --target "$host" \
  --target-dir "$target/counting" --package orchestrator --package bench
bench="$target/counting/$host/dist/bench"
for store in postgres sqlite; do
  "$bench" run --store "$store" --workload chain --concurrency 2000 --seconds 4
  "$bench" run --store "$store" --workload chain --concurrency 64 --seconds 4
  "$bench" run --store "$store" --workload fan-out --concurrency 20 --seconds 3
  "$bench" run --store "$store" --workload chain --concurrency 1 --seconds 3
done
"$profdata" merge --sparse --output bench/dist.profdata "$counts"/*.profraw
ls -l bench/dist.profdata
