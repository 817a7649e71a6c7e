#!/bin/sh
# Installs Lumen beside this file, for this user alone, and starts it. `./install.sh help` says how.
#
# Everything is checked before anything long begins. Stamps are written last, so that an installation which was
# interrupted anywhere is mended by the next run; one that is complete is recognised without starting Python.
set -eu

ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
VENV=$ROOT/.venv
TOOLS=$ROOT/.venv-tools
BUILD=$ROOT/.build
STAMP=$VENV/.lumen-stamp
UNFINISHED=$VENV/.lumen-unfinished
PROBLEMS=''

usage() {
    cat <<'END'
Usage: ./install.sh [command]

  (none)        install Lumen and the llama.cpp engine into .venv, or bring them up to date
  up [args]     install where needed, then `lumen up [args]`
  test [args]   install what the tests need too, then `pytest [args]`
  dev           install what the tests and the static checks need; run nothing
  service       write a systemd user unit that runs `lumen up` (--print: only show it)
  uninstall     stop the gateway, remove .venv and the unit; keep models and configuration (--purge: remove these too)
  help          this text

Environment:
  LUMEN_PYTHON  the Python to use (3.11 or newer); otherwise the first that fits
  LUMEN_LLAMA   auto (default), prebuilt or source: where the llama.cpp engine comes from
  LUMEN_CUDA    off: the engine for the CPU, even where a GPU is found
  CMAKE_ARGS    further CMake options when the engine is built here

pip's own settings (index, certificate, proxy) are followed. Nothing needs root.
END
}

say() { printf '%s\n' "$@"; }

die() {
    printf 'install.sh: %s\n' "$1" >&2
    exit 1
}

# Remembers something that is missing. Usage: problem WHAT REMEDY
problem() {
    PROBLEMS="$PROBLEMS
  - $1
      → $2"
}

stop_on_problems() {
    [ -n "$PROBLEMS" ] || return 0
    printf 'Lumen cannot be installed yet:%s\nThen run ./install.sh again. Nothing was changed.\n' "$PROBLEMS" >&2
    exit 1
}

# How to get something on this distribution. Usage: advice compiler|venv|python
advice() {
    for manager in apt-get dnf pacman zypper apk ''; do
        [ -n "$manager" ] && command -v "$manager" >/dev/null 2>&1 && break
    done
    case $manager-$1 in
        apt-get-compiler) echo "sudo apt-get install build-essential" ;;
        apt-get-venv) echo "sudo apt-get install python3-venv (or install uv)" ;;
        apt-get-python) echo "sudo apt-get install python3 python3-venv, or set LUMEN_PYTHON" ;;
        dnf-compiler) echo "sudo dnf install gcc gcc-c++" ;;
        pacman-compiler) echo "sudo pacman -S base-devel" ;;
        zypper-compiler) echo "sudo zypper install gcc gcc-c++" ;;
        apk-compiler) echo "doas apk add build-base linux-headers" ;;
        *-compiler) echo "install gcc and g++ (or clang) with the C and C++ standard libraries" ;;
        *-venv) echo "install your distribution's venv and ensurepip modules for Python, or uv" ;;
        *-python) echo "install Python 3.11 or newer, or point LUMEN_PYTHON at one" ;;
    esac
}

# --- what is here already -------------------------------------------------------------------------------------------

# A number over everything that decides what is installed. Usage: inputs run|test
inputs() {
    {
        printf '%s\n' "$ROOT" "${LUMEN_PYTHON:-}" "${LUMEN_LLAMA:-}" "${LUMEN_CUDA:-}" "${CMAKE_ARGS:-}"
        command -v nvidia-smi || true
        cd "$ROOT" && cat install.sh pyproject.toml lumen/__init__.py tools/llama_build.cmake tools/install/*.* \
            requirements/runtime.txt requirements/llama.txt
        [ "$1" = run ] || cat requirements/test.txt
    } | cksum
}

# A number over what stands in the virtualenv: something removed or replaced by hand changes it.
installed() { (ls -d "$VENV"/lib/python3*/site-packages/*.dist-info 2>/dev/null || true) | cksum; }

up_to_date() {
    [ -f "$STAMP" ] && [ ! -e "$UNFINISHED" ] && [ -x "$VENV/bin/python" ] && [ -x "$VENV/bin/lumen" ] &&
        grep -qxF "$1 $(inputs "$1")" "$STAMP" && grep -qxF "has $(installed)" "$STAMP"
}

# --- checks ---------------------------------------------------------------------------------------------------------

# Sets PY to a Python 3.11 or newer that runs (a pyenv shim may not), and PY_VENV to 1 where it can make virtualenvs.
find_python() {
    PY='' PY_VENV='' seen=''
    if [ -n "${LUMEN_PYTHON:-}" ]; then
        set -- "$LUMEN_PYTHON"
    else
        set -- python3 python3.14 python3.13 python3.12 python3.11
    fi
    for name in "$@"; do
        facts=$("$name" -c 'import sys, importlib.util as u
venv = 1 if u.find_spec("venv") and u.find_spec("ensurepip") else 0
print(int(sys.version_info >= (3, 11)), "%d.%d.%d" % sys.version_info[:3], venv, sys.executable)' 2>/dev/null) || continue
        fit=${facts%% *} rest=${facts#* }
        version=${rest%% *} rest=${rest#* }
        if [ "$fit" = 0 ]; then
            seen="$seen $name is $version;"
            continue
        fi
        # The first that fits, but rather one that can make virtualenvs itself.
        case "$PY:$rest" in
            :* | *':1 '*) PY=${rest#* } PY_VERSION=$version PY_VENV=${rest%% *} ;;
        esac
        [ "$PY_VENV" != 1 ] || break
    done
    [ -n "$PY" ] || problem "Python 3.11 or newer is needed;${seen:- none was found}" "$(advice python)"
}

# Sets UV to a usable uv: the one on PATH, or the one that an earlier run brought. Empty: one has to be brought.
find_uv() {
    UV=''
    if command -v uv >/dev/null 2>&1; then
        # Older ones lack options that are used here.
        case $(uv --version 2>/dev/null) in
            'uv 0.'[0-4].* | '') ;;
            *) UV=$(command -v uv) ;;
        esac
    fi
    if [ -z "$UV" ] && tools_complete; then
        UV=$TOOLS/bin/uv
    fi
    if [ -z "$UV" ] && [ -n "$PY" ] && [ "$PY_VENV" = 0 ]; then
        problem "$PY lacks the venv or ensurepip module, and there is no uv" "$(advice venv)"
    fi
}

# The nearest folder that exists at or above a path.
existing() {
    at=$1
    while [ ! -d "$at" ]; do at=$(dirname -- "$at"); done
    printf '%s\n' "$at"
}

check_disk() {
    have=$(df -Pk "$(existing "$1")" 2>/dev/null | awk 'NR == 2 { print int($4 / 1024) }')
    [ "${have:-$2}" -ge "$2" ] || problem "$1 needs $2 MB of free disk; there are $have MB" "free some space, or move the checkout"
}

check_writable() {
    [ -w "$(existing "$1")" ] || problem "$1 cannot be written" "give this user the right to write there; do not use sudo"
}

check_everything() {
    find_python
    find_uv
    [ -z "$PY" ] || eval "$("$PY" "$ROOT/tools/install/settings.py")"
    check_writable "$ROOT"
    check_writable "$CACHE"
    engine_settle
    need_mb=500
    if [ -n "$PY" ] && [ -z "$PROBLEMS" ]; then
        engine_plan
    fi
    if engine_needs_compiler; then
        check_compiler
        need_mb=1500
    elif [ -z "$ENGINE_PLAN" ]; then
        need_mb=1500
    fi
    check_disk "$ROOT" "$need_mb"
    stop_on_problems
}

# --- the parts ------------------------------------------------------------------------------------------------------

uv_pip() { "$UV" pip "$@" ${LUMEN_NO_INDEX:+--no-index}; }

tools_complete() {
    [ -x "$TOOLS/bin/uv" ] && [ "$(cat "$TOOLS/.lumen-tools" 2>/dev/null)" = "$(cksum <"$ROOT/requirements/tools.txt")" ]
}

# The tool environment: a pinned uv and pip, apart from what Lumen runs on.
ensure_tools() {
    tools_complete && return 0
    rm -rf "$TOOLS"
    if [ -n "$UV" ]; then
        "$UV" venv --quiet --python "$PY" "$TOOLS" &&
            uv_pip install --quiet --python "$TOOLS/bin/python" --require-hashes -r "$ROOT/requirements/tools.txt" ||
            return 1
    else
        say "fetching uv from the package index"
        "$PY" -m venv "$TOOLS" &&
            "$TOOLS/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
                -r "$ROOT/requirements/tools.txt" || return 1
        UV=$TOOLS/bin/uv
    fi
    cksum <"$ROOT/requirements/tools.txt" >"$TOOLS/.lumen-tools"
}

ensure_build_tools() {
    uv_pip install --quiet --python "$TOOLS/bin/python" --require-hashes -r "$ROOT/requirements/build.txt"
}

# Whether the virtualenv can be built upon: its Python runs, fits, and is the one that LUMEN_PYTHON asks for.
venv_fits() {
    "$VENV/bin/python" -c 'import sys
fits = sys.version_info >= (3, 11) and sys.prefix != sys.base_prefix
sys.exit(not fits or (sys.argv[1] != "" and sys.argv[1] != "%d.%d.%d" % sys.version_info[:3]))' \
        "${LUMEN_PYTHON:+$PY_VERSION}" 2>/dev/null
}

# The virtualenv. One that an interrupted run left behind may hold half a package: it is made anew, from caches.
ensure_venv() {
    if [ -e "$UNFINISHED" ] || { [ -d "$VENV" ] && ! venv_fits; }; then
        say "mending an interrupted or broken installation"
        rm -rf "$VENV"
    fi
    fresh=1
    [ ! -d "$VENV" ] || fresh=''
    mkdir -p "$VENV"
    : >"$UNFINISHED"
    rm -f "$STAMP"
    [ -z "$fresh" ] || "$UV" venv --quiet --allow-existing --python "$PY" "$VENV" || die "the virtualenv could not be made"
}

install_packages() {
    file=$ROOT/requirements/runtime.txt
    [ "$1" = run ] || file=$ROOT/requirements/test.txt
    say "packages: $(grep -c '==' "$file") pinned, hash-checked"
    uv_pip install --quiet --python "$VENV/bin/python" --require-hashes -r "$file" ||
        die "the packages could not be installed; check the network or pip's index settings, then run ./install.sh again"
}

# The checkout itself, in place: an update of the checkout is an update of Lumen.
install_lumen() {
    uv_pip install --quiet --python "$VENV/bin/python" --no-deps --no-build-isolation --reinstall-package lumen-serve \
        --editable "$ROOT" || die "Lumen itself could not be installed"
}

write_stamp() {
    {
        printf 'run %s\n' "$(inputs run)"
        [ "$1" = run ] || printf 'test %s\n' "$(inputs test)"
        printf 'has %s\n' "$(installed)"
    } >"$STAMP.part"
    mv "$STAMP.part" "$STAMP"
    rm -f "$UNFINISHED"
}

# One installation at a time; the lock goes with the process, however it ends.
lock() {
    mkdir -p "$BUILD" 2>/dev/null || return 0
    command -v flock >/dev/null 2>&1 || return 0
    exec 9>"$BUILD/lock"
    flock -n 9 && return 0
    say "another installation is at work here; waiting for it"
    flock -w 3600 9 || die "the other installation did not end within an hour"
}

# Usage: ensure run|test
ensure() {
    up_to_date "$1" && return 0
    [ -n "${HOME:-}" ] || die "HOME is not set"
    # A process started by pip or uv must go to the environment that it is told.
    unset PIP_USER PIP_TARGET PIP_PREFIX PYTHONHOME PYTHONPATH VIRTUAL_ENV
    CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/lumen
    export UV_PYTHON_DOWNLOADS=never
    # shellcheck source=tools/install/engine.sh
    . "$ROOT/tools/install/engine.sh"
    ENGINE_PLAN=''
    check_everything
    lock
    if up_to_date "$1"; then
        return 0
    fi
    say "installing Lumen into $VENV (Python $PY_VERSION)"
    [ -n "$UV" ] || ensure_tools || die "uv could not be fetched; check the network or pip's index settings"
    ensure_venv
    install_packages "$1"
    install_engine
    install_lumen
    write_stamp "$1"
}

# --- commands -------------------------------------------------------------------------------------------------------

# shellcheck source=tools/install/commands.sh
. "$ROOT/tools/install/commands.sh"

command=${1:-install}
[ $# -eq 0 ] || shift
case $command in
    install)
        ensure run
        say "Lumen is installed and up to date." "Start it: ./install.sh up    (or put $VENV/bin on your PATH and use: lumen up)"
        ;;
    up)
        ensure run
        release
        exec "$VENV/bin/lumen" up "$@"
        ;;
    test)
        ensure test
        release
        cd "$ROOT"
        exec "$VENV/bin/python" -m pytest "$@"
        ;;
    dev) ensure test ;;
    service) service "$@" ;;
    uninstall) uninstall "$@" ;;
    help | -h | --help) usage ;;
    *)
        usage >&2
        exit 2
        ;;
esac
