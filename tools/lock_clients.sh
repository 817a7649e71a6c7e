#!/bin/sh
# Locks the environments of the real clients that the tests drive: hashed .txt files of the .in files in
# tests/clients/locked, and the lock files of its npm projects. No address of a registry is written to any of them.
# Usage: tools/lock_clients.sh [--upgrade]      (uv is taken from $UV, else from PATH)
set -eu

cd "$(dirname "$0")/../tests/clients/locked"
uv=${UV:-uv}

for file in *.in; do
    "$uv" pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
        --universal --python-version 3.11 "$@" --output-file "${file%.in}.txt" "$file"
    printf 'locked tests/clients/locked/%s\n' "${file%.in}.txt"
done

for project in */package.json; do
    (
        cd "$(dirname "$project")"
        npm install --silent --package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund
        printf 'locked tests/clients/locked/%s/package-lock.json\n' "$(dirname "$project")"
    )
done
