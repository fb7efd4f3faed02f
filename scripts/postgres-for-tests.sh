#!/usr/bin/env bash
# Makes sure that PostgreSQL's server binaries are there for the tests: finds them or installs
# Debian's package. With ORCHESTRATOR_TEST_DATABASE_URL set, that server is used instead.
set -euo pipefail
if [ -n "${ORCHESTRATOR_TEST_DATABASE_URL:-}" ]; then
    exit 0
fi
if command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "missing: PostgreSQL's server binaries (initdb, pg_ctl); install PostgreSQL 14 or later," >&2
    echo "or set ORCHESTRATOR_TEST_DATABASE_URL to a server on which databases may be created" >&2
    exit 1
fi
sudo=""
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
        echo "missing: PostgreSQL; install it as root: apt-get install postgresql" >&2
        exit 1
    }
    sudo=sudo
fi
echo "installing PostgreSQL for the tests" >&2
# Without a cluster of its own: the tests start their own servers.
$sudo mkdir -p /etc/postgresql-common
[ -f /etc/postgresql-common/createcluster.conf ] ||
    echo "create_main_cluster = false" | $sudo tee /etc/postgresql-common/createcluster.conf >/dev/null
$sudo apt-get update -q >&2
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -q -y --no-install-recommends postgresql >&2
