#!/bin/sh
# Compiles every requirements/*.in that the installer uses into a hashed .txt beside it.
# The package index comes from the environment (UV_* variables); no address is written to the files.
# Usage: tools/lock.sh [--upgrade]      (uv is taken from $UV, else from PATH)
set -eu

cd "$(dirname "$0")/../requirements"
uv=${UV:-uv}

lock() {
    name=$1
    shift
    "$uv" pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
        --no-annotate --universal --python-version 3.11 "$@" --output-file "$name.txt" "$name.in"
    printf 'locked requirements/%s.txt\n' "$name"
}

# runtime first: test.in takes its versions as constraints.
lock runtime "$@"
lock test "$@"
lock tools "$@"
lock build "$@"
# What the engine needs at run time stands in runtime.in already.
lock llama --no-deps "$@"

# Environments of engines; part of the package, because `lumen engine install` reads them. Without local wheels: a
# torch lying there would take the place of the one that the index has.
unset UV_FIND_LINKS
engine() {
    name=$1
    shift
    "$uv" pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
        --universal --python-version 3.11 "$@" --output-file "../lumen/engines/install/$name.txt" "$name.in"
    printf 'locked lumen/engines/install/%s.txt\n' "$name"
}

engine vllm-cuda13 "$@"
engine vllm-cuda12 "$@"
engine vllm-cpu --override vllm-cpu.overrides "$@"
