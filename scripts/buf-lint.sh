#!/usr/bin/env bash
# Lints the contracts with buf from its npm package. Without npm it says so and passes: the golden
# descriptor test guards compatibility all the same.
set -euo pipefail
cd "$(dirname "$0")/../proto"
version=1.75.0
if command -v buf >/dev/null; then
    exec buf lint
fi
if ! command -v npx >/dev/null; then
    echo "buf lint is skipped: neither buf nor npx is installed (on Debian: apt-get install npm)" >&2
    exit 0
fi
npx --yes "@bufbuild/buf@${version}" lint
