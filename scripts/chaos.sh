#!/usr/bin/env bash
# Faults at random moments under load, for CHAOS_MINUTES (5). CHAOS_SEED: the same faults in the same
# order again. Where it may, it runs in a network of its own, which it can take down and, where the
# kernel has netem, make slow and lossy.
set -euo pipefail
cd "$(dirname "$0")/.."
export CHAOS_MINUTES="${CHAOS_MINUTES:-5}"

run=("${CARGO:-cargo}" test --package contracts --test it -- --ignored --exact --nocapture
  faults::chaos::faults_at_random_moments_lose_and_repeat_nothing)

# What the test needs is built first: a network of its own leads nowhere else.
"${CARGO:-cargo}" build --package orchestrator
"${CARGO:-cargo}" test --package contracts --test it --no-run

if ! command -v unshare >/dev/null || ! command -v ip >/dev/null; then
  echo "without a network of its own: that needs unshare and ip (util-linux, iproute2)" >&2
  exec "${run[@]}"
fi
if ! unshare --net ip link set lo up 2>/dev/null; then
  echo "without a network of its own: that needs the right to make one (root)" >&2
  exec "${run[@]}"
fi
if command -v tc >/dev/null &&
  unshare --net sh -c 'ip link set lo up && tc qdisc add dev lo root netem delay 1ms' 2>/dev/null; then
  prepare='tc qdisc add dev lo root netem delay 1ms 2ms loss 0.2%'
else
  echo "without slow and lossy ways: that needs tc and a kernel with sch_netem" >&2
  prepare=true
fi
export CHAOS_NETWORK=1
exec unshare --net sh -c 'ip link set lo up && eval "$1" && shift && exec "$@"' chaos "$prepare" "${run[@]}"
