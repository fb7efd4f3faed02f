# What the scripts share. FOLDER is where the shop is; next to it, in FOLDER-records, lie the
# agent's records.
set -eu
HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
ORCHESTRATOR=${ORCHESTRATOR:-$HERE/../../target/release/orchestrator}
FOLDER=${1:?"which folder? give the shop's, as in: $0 /tmp/shop"}
command -v "$ORCHESTRATOR" >/dev/null || {
  echo "there is no $ORCHESTRATOR; run \`make build\`, or name one in ORCHESTRATOR" >&2
  exit 1
}
mkdir -p "$FOLDER"
FOLDER=$(CDPATH='' cd -- "$FOLDER" && pwd)
export REMEDIATOR_SANDBOX="$FOLDER"
export ORCHESTRATOR_WORKSPACE="$FOLDER-records"

# The shop's database: a file of SQLite, or a PostgreSQL when SHOP_DATABASE_URL names one.
if [ -n "${SHOP_DATABASE_URL:-}" ]; then
  DATABASE='database={"postgres_env": "SHOP_DATABASE_URL"}'
  CHECKS=checks=checks-postgres.json
else
  DATABASE='database={"sqlite": "data/shop.db"}'
  CHECKS=checks=checks.json
fi

# Runs a workflow: on the server that ORCHESTRATOR_URL names, whose remediator must have the
# same sandbox; without one on a control plane of its own, with its data in ORCHESTRATOR_DATA
# where that is set.
execute() {
  workflow=$HERE/$1
  shift
  if [ -z "${ORCHESTRATOR_URL:-}" ] && [ -n "${ORCHESTRATOR_DATA:-}" ]; then
    set -- --data-dir "$ORCHESTRATOR_DATA" "$@"
  fi
  "$ORCHESTRATOR" workflows execute "$workflow" "$@"
}
