# `install.sh service` and `install.sh uninstall`. Sourced by install.sh, whose names it uses.
# shellcheck shell=sh

unit_path() { printf '%s\n' "${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user/lumen.service"; }

# Lets go of the installation lock, which a program that replaces this one would otherwise keep.
release() { exec 9>&-; }

# A path as systemd wants it within double quotes; it expands % everywhere and reads backslashes.
unit_quote() { printf '%s\n' "$1" | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/%/%%/g'; }

unit_text() {
    printf '%s\n' '[Unit]' 'Description=Lumen: one OpenAI-compatible endpoint' '' '[Service]' \
        "ExecStart=\"$(unit_quote "$VENV/bin/lumen")\" up"
    [ -z "${LUMEN_HOME:-}" ] || printf 'Environment="LUMEN_HOME=%s"\n' "$(unit_quote "$LUMEN_HOME")"
    printf '%s\n' 'Restart=on-failure' 'RestartSec=2' 'KillMode=mixed' 'TimeoutStopSec=60' '' \
        '[Install]' 'WantedBy=default.target'
}

service() {
    case ${1:-} in
        --print)
            unit_text
            return 0
            ;;
        '') ;;
        *)
            usage >&2
            exit 2
            ;;
    esac
    ensure run
    unit=$(unit_path)
    mkdir -p "$(dirname -- "$unit")"
    unit_text >"$unit.part"
    mv "$unit.part" "$unit"
    say "wrote $unit" \
        "  start it now and at every login:   systemctl --user daemon-reload && systemctl --user enable --now lumen" \
        "  keep it running without a login:   loginctl enable-linger" \
        "  what it says:                      journalctl --user -u lumen -f"
}

# Runs something for at most so many seconds, where `timeout` exists. Usage: within SECONDS COMMAND...
within() {
    if command -v timeout >/dev/null 2>&1; then
        timeout "$@"
    else
        shift
        "$@"
    fi
}

stop_gateway() {
    unit=$(unit_path)
    if [ -f "$unit" ] && command -v systemctl >/dev/null 2>&1; then
        within 90 systemctl --user disable --now lumen.service >/dev/null 2>&1 || true
    fi
    if [ -x "$VENV/bin/lumen" ]; then
        within 90 "$VENV/bin/lumen" down >/dev/null 2>&1 || true
    fi
    file=$STATE_DIR/run/gateway.json
    pid=$(sed -n 's/.*"pid"[^0-9]*\([0-9][0-9]*\).*/\1/p' "$file" 2>/dev/null || true)
    if [ -n "$pid" ] && grep -q lumen "/proc/$pid/cmdline" 2>/dev/null; then
        die "the gateway (process $pid) does not stop; nothing was removed. Stop it (kill $pid), then run this again."
    fi
}

# Where Lumen keeps things, as lumen/paths.py has it; here without Python, for an installation that is broken.
find_folders() {
    if [ -n "${LUMEN_HOME:-}" ]; then
        CONFIG_DIR=$LUMEN_HOME/config STATE_DIR=$LUMEN_HOME/state DATA_DIR=$LUMEN_HOME/data
    else
        CONFIG_DIR=${XDG_CONFIG_HOME:-$HOME/.config}/lumen
        STATE_DIR=${XDG_STATE_HOME:-$HOME/.local/state}/lumen
        DATA_DIR=${XDG_DATA_HOME:-$HOME/.local/share}/lumen
    fi
    CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/lumen
}

uninstall() {
    purge=''
    case ${1:-} in
        '') ;;
        --purge) purge=1 ;;
        *)
            usage >&2
            exit 2
            ;;
    esac
    [ -n "${HOME:-}" ] || die "HOME is not set"
    find_folders
    stop_gateway
    unit=$(unit_path)
    rm -rf "$VENV" "$TOOLS" "$BUILD"
    if [ -f "$unit" ]; then
        rm -f "$unit"
        within 10 systemctl --user daemon-reload >/dev/null 2>&1 || true
    fi
    say "removed the virtualenv, the tools and the service unit"
    if [ -n "$purge" ]; then
        rm -rf "$CONFIG_DIR" "$STATE_DIR" "$DATA_DIR" "$CACHE"
        say "removed configuration, keys, logs, models and the kept engine wheels" "what remains: this checkout ($ROOT)"
        return 0
    fi
    say "what remains:" "  $ROOT  (this checkout)"
    for folder in "$CONFIG_DIR (configuration and keys)" "$STATE_DIR (logs)" "$DATA_DIR (models)" \
        "$CACHE (engine wheels)"; do
        [ ! -d "${folder% (*}" ] || say "  $(du -sh "${folder% (*}" 2>/dev/null | cut -f1)  $folder"
    done
    say "To remove these too: ./install.sh uninstall --purge"
}
