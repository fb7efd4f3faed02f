#!/bin/sh
# Breaks the shop: break.sh FOLDER [for-good]
# With `for-good` the worker's program is gone too, so that it cannot be restarted.
. "$(dirname -- "$0")/common.sh"
cd "$FOLDER"
# A wrong configuration.
sed 's/^port = .*/port = 80800/' shop.conf > shop.conf.new && mv shop.conf.new shop.conf
# A folder that is full.
i=0
while [ "$i" -lt 20 ]; do
  dd if=/dev/zero of="spool/order-$i.tmp" bs=8192 count=1 2> /dev/null
  i=$((i + 1))
done
# A key that has expired.
sed 's/^expires = .*/expires = 1700000000/' keys/signing.key > keys/new
chmod 600 keys/new && mv keys/new keys/signing.key
# A worker that is dead, and has left its pid file.
if [ -e run/worker.pid ]; then
  kill -KILL "$(cat run/worker.pid)" 2> /dev/null || true
fi
if [ "${2:-}" = for-good ]; then
  printf '{\n  "command": ["./bin/gone"],\n  "pid_file": "run/worker.pid"\n}\n' > worker.json
fi
# A migration that is missing.
execute break-database.yml --param "$DATABASE"
