"""`lumen up`: start the gateway and its engines, wait until they answer, say how to use them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import typer

from lumen.core.errors import LumenError
from lumen.paths import Paths
from lumen.paths import paths as find_paths
from lumen_cli import gateway, offer, startup
from lumen_cli.client import Admin
from lumen_cli.errors import CliError, tell
from lumen_cli.gateway import Options
from lumen_cli.output import command, note, say

app = command()

# After a second Ctrl-C: what the gateway gets to end its engines before it is killed.
_AT_ONCE = 3.0
_START_STOP = 15.0
_TICK = 0.2


@app.command()
def up(
    detach: bool = typer.Option(False, "--detach", "-d", help="Return when it is ready and leave it running."),
    host: str | None = typer.Option(None, help="Address to listen on; default 127.0.0.1."),
    port: int | None = typer.Option(None, min=0, max=65535, help="Port to listen on; default 5866."),
    profile: str | None = typer.Option(None, help="Hardware profile; default: the one that matches."),
    config: Path | None = typer.Option(None, metavar="PATH", help="Configuration file."),
    yes: bool = typer.Option(False, "--yes", "-y", help="Fetch the profile's model without asking."),
) -> None:
    """Start the gateway and its engines, and wait until they answer.

    Without --detach it runs here until Ctrl-C. The first time it offers a model that suits this machine; until there is
    one, a tiny built-in model answers. A configuration that cannot be used is refused with the line that is wrong.
    """
    given = config.expanduser().absolute() if config is not None else None
    run(Options(given, host, port, profile), detach=detach, yes=yes)


def run(options: Options, *, detach: bool, yes: bool = False) -> None:
    """Start a gateway with `options`, or say where the running one is.

    Raises:
        CliError: it cannot start; nothing of it is left running.
        ConfigError: the configuration cannot be used.
    """
    from lumen.config.load import load, locate
    from lumen.keys import ensure_local

    paths = find_paths()
    paths.make()
    admin = Admin(paths.admin_socket)
    key = ensure_local(paths)
    running = admin.status_or_none()
    if running is not None:
        _already(running, key, paths, admin, options, yes=yes)
        return
    # Told here, before anything starts, with file and line.
    load(locate(options.config, paths.config_file))
    with _signals_interrupt():
        child, since = gateway.spawn(options, paths, detached=detach)
        try:
            _until_interrupted(options, paths, admin, key, child, since, detach=detach, yes=yes)
        except KeyboardInterrupt:
            _drain(child, admin)
            if detach:
                raise
        except BaseException:
            # Whatever went wrong here: in the foreground nothing is left behind.
            if not detach:
                _end(child)
            raise


def _already(running: dict[str, Any], key: str, paths: Paths, admin: Admin, options: Options, *, yes: bool) -> None:
    state = "" if running.get("ready") else " and still starting"
    note(f"Lumen is already running{state} (process {running['pid']}).")
    if given := " ".join(options.arguments()):
        note(f"It goes on as it was started: for {given} run `lumen down` first.")
    _present(running, key)
    if running.get("config"):
        offer.offer(running, paths, admin, yes=yes, config=Path(running["config"]))


def _until_interrupted(
    options: Options,
    paths: Paths,
    admin: Admin,
    key: str,
    child: subprocess.Popen[bytes],
    since: int,
    *,
    detach: bool,
    yes: bool,
) -> None:
    """Until ready (detached) or until the gateway ends."""
    try:
        status = startup.follow(admin, paths, startup.view(sys.stderr.isatty()), child, since)
    except CliError:
        _end(child)
        raise
    _present(status, key)
    try:
        offer.offer(status, paths, admin, yes=yes, config=options.config or paths.config_file)
    except (CliError, LumenError, OSError) as error:
        if detach:
            raise
        # What serves already goes on serving.
        tell(str(error), getattr(error, "hint", None))
    if detach:
        note("It runs in the background: `lumen status`, `lumen logs -f`, `lumen down`.")
        return
    note("Press Ctrl-C to stop.")
    code = child.wait()
    if code != 0:
        raise gateway.failure(paths, since, code)
    after = gateway.record(paths)
    if after is not None and after.pid != child.pid and gateway.Process(after.pid, after.started).alive():
        note(f"Another gateway has taken over; it runs in the background (process {after.pid}).")
        return
    note("Lumen was stopped.")


def _present(status: dict[str, Any], key: str) -> None:
    """Base URL, key, and five lines to paste."""
    url = gateway.local_url(status["url"])
    model = gateway.first_model(status) or "MODEL"
    say()
    say(f"  Base URL  {url}")
    say(f"  API key   {key}")
    say()
    say("  from openai import OpenAI")
    say(f'  client = OpenAI(base_url="{url}", api_key="{key}")')
    say('  messages = [{"role": "user", "content": "What is Lumen?"}]')
    say(f'  for chunk in client.chat.completions.create(model="{model}", messages=messages, stream=True):')
    say('      print(chunk.choices[0].delta.content or "", end="", flush=True)')
    say()
    for missing in (model for model in status.get("models", []) if model.get("missing")):
        note(f"Model {missing['name']} is not served: {missing['missing']}")
    if url != status["url"]:
        plain = "" if status.get("tls") else "; without TLS their keys go in the clear (docs/security.md)"
        note(f"Other machines reach it by this machine's name or address{plain}.")
    if status.get("notice"):
        note(str(status["notice"]))


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP end this command as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _drain(child: subprocess.Popen[bytes], admin: Admin) -> None:
    """Have the gateway finish what runs, and say what it waits for; a further Ctrl-C ends it at once."""
    try:
        note("")
        began = _in_flight(admin)
        note(f"Stopping; {began} in flight. Ctrl-C again stops at once." if began else "Stopping.")
        child.send_signal(signal.SIGTERM)
        _watch(child, admin, began)
    except KeyboardInterrupt:
        note("Stopping at once.")
        _end(child, _AT_ONCE)
    note("Lumen has stopped." if child.returncode == 0 else f"Lumen was killed (exit code {child.returncode}).")


def _watch(child: subprocess.Popen[bytes], admin: Admin, said: int) -> None:
    """Until the gateway has ended; it bounds the time to drain itself."""
    while child.poll() is None:
        left = _in_flight(admin)
        if left != said and left:
            note(f"  {left} in flight")
            said = left
        time.sleep(_TICK)


def _in_flight(admin: Admin) -> int:
    try:
        status = admin.status_or_none()
    except CliError:
        return 0
    return int(((status or {}).get("requests") or {}).get("in_flight") or 0)


def _end(child: subprocess.Popen[bytes], grace: float = _START_STOP) -> None:
    """SIGTERM, then SIGKILL after `grace` seconds; the engines end with the gateway or are swept at the next start."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
    try:
        child.wait(grace)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
