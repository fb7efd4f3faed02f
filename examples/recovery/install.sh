#!/bin/sh
# Installs a healthy shop: install.sh FOLDER
. "$(dirname -- "$0")/common.sh"
cp -R "$HERE/service/." "$FOLDER/"
chmod 600 "$FOLDER/keys/signing.key"
[ -e "$FOLDER/data/shop.db" ] || : > "$FOLDER/data/shop.db"
execute install.yml --param "$DATABASE"
