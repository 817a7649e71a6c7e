# The llama.cpp engine: which llama-cpp-python to install, and how. Sourced by install.sh, whose names it uses
# (ROOT, VENV, TOOLS, BUILD, CACHE, PY, UV; say, problem, die, ensure_tools, advice).
#
# Wheels are kept in CACHE/wheels/<version>-py3-<this machine's processor and build flags>[-variant]:
#   no variant: built here for the CPU; cuda: built here for the GPU; cpu-prebuilt, cuNNN: upstream's own.
# shellcheck shell=sh

engine_settle() {
    ENGINE_VERSION=$(sed -n 's/^llama-cpp-python==\([^ ;]*\).*/\1/p' "$ROOT/requirements/llama.txt")
    processor=$(awk '/^(flags|Features|isa)/ { print; exit }' /proc/cpuinfo 2>/dev/null || true)
    machine=$(printf '%s\n' "$(uname -sm)" "$processor" "${CMAKE_ARGS:-}" "$(cat "$ROOT/tools/llama_build.cmake")" | cksum)
    ENGINE_BASE=$CACHE/wheels/$ENGINE_VERSION-py3-${machine%% *}
    ENGINE_MODE=${LUMEN_LLAMA:-auto}
    case $ENGINE_MODE in
        auto | prebuilt | source) ;;
        *) problem "LUMEN_LLAMA is '$ENGINE_MODE'" "set it to auto, prebuilt or source" ;;
    esac
    GPU_TAGS=''
    [ -n "${PY:-}" ] || return 0
    if [ "${LUMEN_CUDA:-auto}" != off ] && command -v nvidia-smi >/dev/null 2>&1; then
        GPU_TAGS=$("$PY" "$ROOT/tools/install/prebuilt.py" tags || true)
    fi
}

# Sets ENGINE_PLAN to words like "cached:cu124 prebuilt:cpu-prebuilt source:cpu", to be tried in this order:
# what uses the GPU before what does not, what is here before what is fetched, what is fetched before what is built.
engine_plan() {
    case $ENGINE_MODE in
        source) wanted="${GPU_TAGS:+cuda} cpu" ;;
        prebuilt) wanted="$GPU_TAGS cpu-prebuilt" ;;
        *) wanted="$GPU_TAGS ${GPU_TAGS:+cuda} cpu cpu-prebuilt" ;;
    esac
    cached_gpu='' cached_cpu='' fetch_gpu='' fetch_cpu='' build_gpu='' build_cpu=''
    for variant in $wanted; do
        engine_wheel "$variant" >/dev/null || continue
        case $variant in
            cu*) cached_gpu="$cached_gpu cached:$variant" ;;
            *) cached_cpu="$cached_cpu cached:$variant" ;;
        esac
    done
    if [ "$ENGINE_MODE" != prebuilt ]; then
        build_cpu=source:cpu
        [ -z "$GPU_TAGS" ] || ! command -v nvcc >/dev/null 2>&1 || build_gpu=source:cuda
    fi
    # A wheel kept for the CPU does not end the search on a machine with a GPU.
    if [ "$ENGINE_MODE" != source ] && [ -z "$cached_gpu" ] && { [ -n "$GPU_TAGS" ] || [ -z "$cached_cpu" ]; }; then
        # shellcheck disable=SC2086
        found=$("$PY" "$ROOT/tools/install/prebuilt.py" find "$ENGINE_VERSION" $GPU_TAGS cpu || true)
        [ -z "$found" ] || fetch_cpu=prebuilt:cpu-prebuilt
        case $found in cu*) fetch_gpu=prebuilt:$found ;; esac
    fi
    if [ -n "$GPU_TAGS" ] && [ -z "$cached_gpu$fetch_gpu$build_gpu" ]; then
        say "a GPU is here, but upstream's CUDA wheels cannot be reached and there is no nvcc to build with:" \
            "the local engine will use the CPU. With the CUDA toolkit installed, run ./install.sh again."
    fi
    # shellcheck disable=SC2086
    set -- $cached_gpu $fetch_gpu $build_gpu $cached_cpu $fetch_cpu $build_cpu
    ENGINE_PLAN="$*"
    if [ -z "$ENGINE_PLAN" ]; then
        problem "the prebuilt engine wheels cannot be reached, and LUMEN_LLAMA=prebuilt allows nothing else" \
            "connect to the network, or unset LUMEN_LLAMA to build from source"
    fi
}

engine_needs_compiler() {
    case $ENGINE_PLAN in source:*) return 0 ;; *) return 1 ;; esac
}

# Prints the kept wheel of a variant; fails where there is none.
engine_wheel() {
    for wheel in "$(engine_folder "$1")"/llama_cpp_python-"$ENGINE_VERSION"*.whl; do
        if [ -f "$wheel" ]; then
            printf '%s\n' "$wheel"
            return 0
        fi
    done
    return 1
}

engine_folder() {
    case $1 in cpu) printf '%s\n' "$ENGINE_BASE" ;; *) printf '%s\n' "$ENGINE_BASE-$1" ;; esac
}

check_compiler() {
    CC_FOUND=${CC:-} CXX_FOUND=${CXX:-}
    for name in cc gcc clang; do
        [ -n "$CC_FOUND" ] || ! command -v "$name" >/dev/null 2>&1 || CC_FOUND=$name
    done
    for name in c++ g++ clang++; do
        [ -n "$CXX_FOUND" ] || ! command -v "$name" >/dev/null 2>&1 || CXX_FOUND=$name
    done
    if [ -z "$CC_FOUND" ] || [ -z "$CXX_FOUND" ]; then
        problem "there is no C and C++ compiler, and the local engine has to be built here" "$(advice compiler)"
        return 0
    fi
    # CXX may hold flags, as make allows. A compiler without its headers is the usual half installation.
    # shellcheck disable=SC2086
    if ! printf '#include <vector>\n#include <stdio.h>\nint main() { return 0; }\n' |
        $CXX_FOUND -std=c++17 -x c++ - -o /dev/null >/dev/null 2>&1; then
        problem "the C++ compiler ($CXX_FOUND) cannot build a small program" "$(advice compiler)"
    fi
}

# Parallel jobs: the cores this process may use, fewer where memory is short (a file takes up to 900 MB).
build_jobs() {
    cores=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
    free_mb=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo 2>/dev/null || true)
    fit=$(((${free_mb:-99999} + 899) / 900))
    [ "$fit" -ge 1 ] || fit=1
    [ "$fit" -lt "$cores" ] || fit=$cores
    printf '%s\n' "${CMAKE_BUILD_PARALLEL_LEVEL:-$fit}"
}

# Installs the first of ENGINE_PLAN that works on this machine; nothing where the best is there already.
install_engine() {
    best=${ENGINE_PLAN%% *}
    if engine_installed && [ "$(cat "$VENV/.lumen-engine" 2>/dev/null)" = "$(engine_folder "${best#*:}")" ]; then
        return 0
    fi
    rm -f "$VENV/.lumen-engine"
    for step in $ENGINE_PLAN; do
        variant=${step#*:}
        case $step in
            cached:*) try_wheel "$variant" "$(engine_wheel "$variant")" && return 0 ;;
            prebuilt:*) try_prebuilt "$variant" && return 0 ;;
            source:*) try_source "$variant" && return 0 ;;
        esac
    done
    die "the local engine could not be installed; the messages above say why"
}

engine_installed() {
    for dist in "$VENV"/lib/python3*/site-packages/llama_cpp_python-"$ENGINE_VERSION"*.dist-info; do
        [ ! -d "$dist" ] || return 0
    done
    return 1
}

# Installs a wheel and proves it by decoding a token. Usage: try_wheel VARIANT FILE
try_wheel() {
    "$UV" pip install --quiet --python "$VENV/bin/python" --no-deps --offline \
        --reinstall-package llama-cpp-python "$2" || return 1
    gpu=''
    case $1 in cu*) gpu=--gpu ;; esac
    if "$VENV/bin/python" "$ROOT/tools/install/check.py" $gpu "$ROOT/lumen/tiny/lumen-tiny.gguf"; then
        printf '%s\n' "$(engine_folder "$1")" >"$VENV/.lumen-engine"
        say "engine: llama.cpp ($(engine_words "$1"))"
        return 0
    fi
    say "the engine wheel $(basename "$2") does not work here; trying the next way"
    case $2 in "$CACHE"/*) rm -f "$2" ;; esac
    return 1
}

engine_words() {
    case $1 in
        cpu) echo "built for this processor" ;;
        cuda) echo "built for this GPU" ;;
        cpu-prebuilt) echo "prebuilt, for the CPU" ;;
        *) echo "prebuilt, CUDA ${1#cu}" ;;
    esac
}

# Keeps a wheel for the next installation; complete or not at all. Usage: keep_wheel VARIANT FILE
keep_wheel() {
    folder=$(engine_folder "$1")
    mkdir -p "$folder" && cp "$2" "$folder/.part.$$" && mv -f "$folder/.part.$$" "$folder/$(basename "$2")" ||
        say "the wheel could not be kept in $folder; the next installation makes it again"
}

try_prebuilt() {
    variant=$1 tag=${1%-prebuilt}
    say "engine: fetching upstream's prebuilt llama-cpp-python $ENGINE_VERSION ($tag)"
    ensure_tools || return 1
    rm -rf "$BUILD/llama" && mkdir -p "$BUILD/llama/out"
    # --isolated: this one index only, whatever else pip is configured to look at.
    set -- --isolated download --quiet --disable-pip-version-check --no-deps --only-binary :all: --retries 1 \
        --index-url "$("$PY" "$ROOT/tools/install/prebuilt.py" index "$tag")" --dest "$BUILD/llama/out"
    [ -z "${SSL_CERT_FILE:-}" ] || set -- "$@" --cert "$SSL_CERT_FILE"
    if ! "$TOOLS/bin/python" -m pip "$@" "llama-cpp-python==$ENGINE_VERSION"; then
        say "the prebuilt wheel could not be fetched; trying the next way"
        return 1
    fi
    for wheel in "$BUILD/llama/out"/*.whl; do
        try_wheel "$variant" "$wheel" || return 1
        keep_wheel "$variant" "$wheel"
        rm -rf "$BUILD/llama"
        return 0
    done
    return 1
}

try_source() {
    PROBLEMS=''
    check_compiler
    stop_on_problems
    jobs=$(build_jobs)
    flags="-DLLAVA_BUILD=OFF '-DCMAKE_PROJECT_llama.cpp_INCLUDE=$ROOT/tools/llama_build.cmake'"
    if [ "$1" = cuda ]; then
        flags="-DGGML_CUDA=on $flags"
        say "engine: building llama.cpp for this GPU, $jobs files at a time: 10 to 40 minutes"
    else
        say "engine: building llama.cpp for this processor, once, $jobs files at a time: about $(
            "$PY" "$ROOT/tools/install/build.py" --estimate "$jobs"
        )"
    fi
    ensure_tools && ensure_build_tools || return 1
    rm -rf "$BUILD/llama" && mkdir -p "$BUILD/llama/out" "$BUILD/llama/tmp" "$BUILD/logs"
    log=$BUILD/logs/llama-build.log
    # pip's own wheel cache knows nothing of build flags, hence --no-cache-dir; ours does.
    if ! PATH="$TOOLS/bin:$PATH" TMPDIR="$BUILD/llama/tmp" CMAKE_GENERATOR=Ninja \
        CMAKE_ARGS="$flags ${CMAKE_ARGS:-}" CMAKE_BUILD_PARALLEL_LEVEL="$jobs" \
        "$PY" "$ROOT/tools/install/build.py" "$log" \
        "$TOOLS/bin/python" -m pip wheel --verbose --disable-pip-version-check --no-cache-dir --no-deps \
        --no-build-isolation --no-binary llama-cpp-python --require-hashes \
        --requirement "$ROOT/requirements/llama.txt" --wheel-dir "$BUILD/llama/out"; then
        rm -rf "$BUILD/llama"
        say "the engine could not be built. The whole log: $log" \
            "If it says 'Killed', memory ran out: CMAKE_BUILD_PARALLEL_LEVEL=1 ./install.sh" \
            "If it could not fetch the source, check the network or pip's index settings, and run again."
        return 1
    fi
    for wheel in "$BUILD/llama/out"/*.whl; do
        try_wheel "$1" "$wheel" || return 1
        keep_wheel "$1" "$wheel"
        rm -rf "$BUILD/llama"
        return 0
    done
    return 1
}
