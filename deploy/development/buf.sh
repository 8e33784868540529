#!/usr/bin/env bash
# Runs buf on proto/. The tool comes from npm, kept outside the repository under its version.
set -euo pipefail
version=1.75.0
folder="${XDG_CACHE_HOME:-$HOME/.cache}/millrace/buf-$version"
if [ ! -x "$folder/node_modules/.bin/buf" ]; then
    command -v npm >/dev/null || { echo "Linting protos needs npm: apt-get install npm" >&2; exit 1; }
    mkdir -p "$folder"
    npm install --silent --no-audit --no-fund --prefix "$folder" "@bufbuild/buf@$version"
fi
cd "$(dirname "$0")/../../proto"
exec "$folder/node_modules/.bin/buf" "$@"
