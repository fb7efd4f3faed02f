#!/usr/bin/env bash
# Builds the packages named, optimised as a whole and with a profile of the server at work, into
# target/dist. The profile is bench/dist.profdata, which `make profile` writes; what it says of code
# that has changed since, or was compiled by another rustc, is passed over.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo="${CARGO:-cargo}"
target="${CARGO_TARGET_DIR:-target}"
profile="$PWD/bench/dist.profdata"
host="$(rustc -vV | sed -n 's/^host: //p')"

packages=()
for package in "$@"; do packages+=(--package "$package"); done

usable=$(mktemp -d)
trap 'rm -rf "$usable"' EXIT
if echo 'fn main() {}' | rustc "-Cprofile-use=$profile" -O -o "$usable/main" - 2>"$usable/why"; then
  export RUSTFLAGS="${RUSTFLAGS:-} -Cprofile-use=$profile"
else
  echo "without the profile, which this rustc does not read: $(head -1 "$usable/why")" >&2
fi
# Named, so that build scripts and macros are built without it.
"$cargo" build --profile dist --target "$host" "${packages[@]}"
mkdir -p "$target/dist"
for package in "$@"; do cp "$target/$host/dist/$package" "$target/dist/$package"; done
