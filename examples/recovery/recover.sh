#!/bin/sh
# Recovers the shop and verifies that it is healthy: recover.sh FOLDER
# When one action fails for good, everything is put back as it was; exits with 1 then.
. "$(dirname -- "$0")/common.sh"
execute plan.yml --param "$DATABASE" --param "$CHECKS"
