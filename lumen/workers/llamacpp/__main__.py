"""`python -m lumen.workers.llamacpp`: load the model, listen, serve until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from pathlib import Path

import uvloop
from aiohttp import web

from lumen.workers.llamacpp.lifecycle import die_with_parent, phase
from lumen.workers.llamacpp.model import LoadError
from lumen.workers.llamacpp.server import Server
from lumen.workers.llamacpp.settings import FLASH, KV_TYPES, POOLING, TOGETHER, Settings
from lumen.workers.llamacpp.worker import Worker, load

EXIT_USAGE = 2
EXIT_LOAD = 4
EXIT_BROKEN = 70


def parse(argv: list[str]) -> Settings:
    """Settings from the command line; ends the process with status 2 on nonsense."""
    parser = argparse.ArgumentParser(prog="python -m lumen.workers.llamacpp", description=__doc__)
    add = parser.add_argument
    add("--model", type=Path, required=True, help="GGUF file")
    add("--name", required=True, help="the model name requests carry")
    add("--socket", type=Path, help="UNIX socket to listen on")
    add("--port", type=int, help="loopback port to listen on (0: any free one)")
    add("--ctx", type=int, default=0, help="tokens of one prompt and its answer")
    add("--kv", type=int, default=0, help="KV cells shared by all sequences")
    add("--park", type=int, default=256, help="cells finished answers may keep while others run")
    add("--shelf-mb", type=int, default=512, help="MiB of host memory for the prefixes of finished answers")
    add("--kv-dir", type=Path, help="folder for prefixes that are kept when this process ends")
    add("--kv-disk-mb", type=int, default=0, help="MiB of these (0: none are kept)")
    add("--slots", type=int, default=8, help="answers generated at once")
    add("--batch", type=int, default=512, help="tokens of one decode")
    add("--ubatch", type=int, default=0, help="tokens computed in one go (0: choose)")
    add("--threads", type=int, default=0, help="0: one per core this process may use")
    add("--gpu-layers", type=int, default=0, help="layers on the GPU; negative: all")
    add("--flash-attn", choices=FLASH, default="auto")
    add("--kv-type", choices=KV_TYPES, default="f16")
    add("--repack", choices=FLASH, default="auto", help="rearrange weights for this CPU")
    add("--speculate", choices=FLASH, default="auto", help="guess tokens ahead where that pays")
    add("--draft", type=Path, help="GGUF file of a small model of the same vocabulary, to guess tokens")
    add("--adapter", dest="adapters", action="append", default=[], type=_adapter, metavar="NAME=GGUF")
    add("--embedding", action="store_true", help="serve embeddings only")
    add("--pooling", choices=POOLING, default="auto")
    add(
        "--together",
        type=float,
        default=TOGETHER,
        help="seconds that a token may wait for the next ones (0: none does)",
    )
    add("--grace", type=float, default=30.0, help="seconds for running answers after SIGTERM")
    add("--queue", type=int, default=4096, help="answers that may wait")
    add("--parent-pid", type=int, help="end when this process ends")
    arguments = parser.parse_args(argv)
    arguments.adapters = tuple(arguments.adapters)
    try:
        return Settings(**vars(arguments))
    except ValueError as error:
        parser.error(str(error))


def _adapter(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=GGUF")
    return name, Path(path)


class _Stop:
    """Signals and deaths, as events to wait for: `asked` is the wish to end, `now` the order to."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.now = asyncio.Event()
        self.broken = False

    def ask(self) -> None:
        if self.asked.is_set():
            self.now.set()
        self.asked.set()

    def broke(self) -> None:
        self.broken = True
        self.asked.set()
        self.now.set()


async def serve(worker: Worker) -> int:
    """Serve until a signal asks to stop; returns the exit status."""
    settings, stop = worker.settings, _Stop()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.ask)
    server = Server(worker)
    engine = server.start(stop.broke)
    runner = web.AppRunner(server.app(), handler_cancellation=True, access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    where = await _listen(runner, settings)
    props = worker.props()
    gc.freeze()  # what lives from here on is the program itself: looking through it takes some tens of milliseconds
    phase("ready", n_ctx=worker.n_ctx, slots=settings.slots, capabilities=props["capabilities"], **where)
    await stop.asked.wait()
    server.draining = True
    await _drained(server, stop, settings.grace)
    ended = await asyncio.to_thread(engine.stop, True, 10.0)
    await asyncio.sleep(0)  # the engine's last events are on their way: let them reach their streams
    await runner.cleanup()
    if ended:
        worker.close()
    return EXIT_BROKEN if stop.broken else 0


async def _listen(runner: web.AppRunner, settings: Settings) -> dict[str, object]:
    if settings.socket is not None:
        settings.socket.unlink(missing_ok=True)
        mask = os.umask(0o177)  # the socket is this user's alone from the moment it exists
        try:
            await web.UnixSite(runner, str(settings.socket), backlog=512).start()
        finally:
            os.umask(mask)
        return {"socket": str(settings.socket)}
    site = web.TCPSite(runner, "127.0.0.1", settings.port, backlog=512)
    await site.start()
    return {"port": runner.addresses[0][1]}


async def _drained(server: Server, stop: _Stop, grace: float) -> None:
    """Wait until nothing is in flight, `grace` seconds at most, or until a second signal."""
    deadline = asyncio.get_running_loop().time() + grace
    while server.in_flight and asyncio.get_running_loop().time() < deadline and not stop.now.is_set():
        try:
            await asyncio.wait_for(stop.now.wait(), 0.02)
        except TimeoutError:
            continue


def main() -> None:
    settings = parse(sys.argv[1:])
    # Without this an abort inside the library first starts a debugger and waits for it.
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # After each decode the engine's thread needs a lock the HTTP thread may hold: not for the usual 5 ms.
    sys.setswitchinterval(0.0002)
    if settings.parent_pid is not None:
        die_with_parent(settings.parent_pid)
    try:
        worker = load(settings, phase)
    except LoadError as error:
        phase("failed", message=str(error))
        sys.stderr.write(f"error: {error}\n")
        sys.exit(EXIT_LOAD)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        status = runner.run(serve(worker))
    # Threads of the library may outlive an engine that had to be given up on: do not wait for them.
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
