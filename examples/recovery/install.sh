#!/bin/sh
# Installs a healthy shop: install.sh FOLDER
. "$(dirname -- "$0")/common.sh"
if [ -e "$FOLDER/shop.conf" ]; then
  echo "there is a shop in $FOLDER already; choose another folder, or remove it by" >&2
  echo "  rm -r $FOLDER $FOLDER-records" >&2
  exit 1
fi
cp -R "$HERE/service/." "$FOLDER/"
chmod 600 "$FOLDER/keys/signing.key"
[ -e "$FOLDER/data/shop.db" ] || : > "$FOLDER/data/shop.db"
execute install.yml --param "$DATABASE"
