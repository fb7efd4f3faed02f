#!/bin/sh
# Recovers the shop by way of triage: triage.sh FOLDER [--rollback-all]
# Its checks give the issues; the triage says who mends what and why, the plan what will be done;
# the plan is approved, carried out and watched. Exits with 1 when not everything was mended: then
# what failed is undone, and with --rollback-all everything else too.
# Without ORCHESTRATOR_URL it starts a control plane of its own for as long as it runs.
. "$(dirname -- "$0")/common.sh"
shift
if [ -z "${ORCHESTRATOR_URL:-}" ]; then
  data=$(mktemp -d)
  : > "$data/log"
  "$ORCHESTRATOR" up --listen 127.0.0.1:0 --data-dir "${ORCHESTRATOR_DATA:-$data}" 2>"$data/log" &
  server=$!
  trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; rm -rf "$data"' EXIT
  until ORCHESTRATOR_URL=$(sed -n 's/^ready //p' "$data/log") && [ -n "$ORCHESTRATOR_URL" ]; do
    kill -0 "$server" 2>/dev/null || { cat "$data/log" >&2; exit 1; }
    sleep 0.1
  done
  export ORCHESTRATOR_URL
fi
# The first value of a field in JSON that is written over several lines.
first() { sed -n "s/^ *\"$1\": \"\(.*\)\",*$/\1/p" | head -n 1; }

issues=$("$HERE/check.sh" "$FOLDER") && { echo "the shop is healthy" >&2; exit 0; }
triage=$(printf '%s\n' "$issues" | "$ORCHESTRATOR" triage - -o json | first triageId)
"$ORCHESTRATOR" triages show "$triage"
plan=$("$ORCHESTRATOR" plans create "$triage" "$@" -o json | first planId)
"$ORCHESTRATOR" plans show "$plan"
"$ORCHESTRATOR" plans approve "$plan"
"$ORCHESTRATOR" plans execute "$plan"
"$HERE/check.sh" "$FOLDER" >/dev/null
