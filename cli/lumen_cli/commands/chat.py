"""`lumen chat`: talk to a model of the running gateway over its own endpoint, as any client would."""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import typer

from lumen.paths import paths as find_paths
from lumen_cli import gateway, secure
from lumen_cli.client import Admin
from lumen_cli.errors import CliError, tell
from lumen_cli.output import command, note, say

app = command()

_SILENCE = 300.0
_BLOCK = 65536
_HELP = "/reset forgets the conversation, /model NAME changes the model, /help shows this, Ctrl-D ends."


@dataclass(slots=True)
class Conversation:
    """One conversation with one endpoint. `url` ends in /v1; `tls`: as the gateway's status has it."""

    url: str
    key: str
    model: str
    system: str | None = None
    tls: dict[str, Any] | None = None
    messages: list[dict[str, str]] = field(default_factory=list)

    def reset(self) -> None:
        self.messages = []

    def ask(self, prompt: str) -> Generator[str]:
        """The answer piece by piece. What was answered counts as said, also where it is broken off.

        Raises:
            CliError: the endpoint refuses, fails, or ends without saying why.
        """
        self.messages.append({"role": "user", "content": prompt})
        said: list[str] = []
        try:
            for piece in self._stream():
                said.append(piece)
                yield piece
        finally:
            if said:
                self.messages.append({"role": "assistant", "content": "".join(said)})
            else:
                # A question that got no answer would stand between two others.
                self.messages.pop()

    def _stream(self) -> Iterator[str]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        body = {"model": self.model, "messages": [*system, *self.messages], "stream": True}
        connection = secure.endpoint(self.url, self.tls, _SILENCE)
        try:
            connection.request(
                "POST",
                f"{urlsplit(self.url).path}/chat/completions",
                body=json.dumps(body).encode(),
                headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
            )
            answer = connection.getresponse()
            if answer.status != 200:
                unknown = answer.status == http.client.NOT_FOUND
                hint = "`lumen status` tells which models and routes there are" if unknown else None
                raise CliError(_refusal(answer.status, answer.read(_BLOCK)), hint)
            yield from _pieces(answer)
        except TimeoutError:
            raise CliError(f"no answer within {_SILENCE:g} s", "see `lumen status`") from None
        except (OSError, http.client.HTTPException) as error:
            raise CliError(f"the connection to {self.url} broke ({error})", "see `lumen status`") from None
        finally:
            # Closing a stream that goes on is how the answer is stopped.
            connection.close()


@app.command()
def chat(
    model: str | None = typer.Argument(None, help="Model or route; default: the first that is ready."),
    system: str | None = typer.Option(None, help="A system message."),
    once: str | None = typer.Option(None, metavar="PROMPT", help="Ask this, print the answer and end; - reads stdin."),
) -> None:
    """Talk to a model in the terminal.

    Without a name it is the first route or model that there is. Ctrl-C ends an answer, Ctrl-D the conversation; with
    --once one answer goes to standard output, as it comes.
    """
    from lumen.keys import ensure_local

    paths = find_paths()
    admin = Admin(paths.admin_socket)
    status = admin.status()
    name = model or gateway.first_model(status)
    if name is None:
        raise CliError("nothing is served yet", "see `lumen status`")
    before = paths.local_key_file.read_bytes() if paths.local_key_file.exists() else None
    key = ensure_local(paths)
    if before != paths.local_key_file.read_bytes():
        admin.post("/admin/reload")
    talk = Conversation(gateway.local_url(status["url"]), key, name, system, status.get("tls"))
    if once is not None:
        _print(talk, sys.stdin.read() if once == "-" else once)
        return
    _loop(talk)


def _loop(talk: Conversation) -> None:
    """Prompt, answer, until the end of input."""
    if sys.stdin.isatty():
        # Imported for what it does to `input`: editing and history.
        import readline  # noqa: F401

        note(f"Talking to {talk.model}. {_HELP}")
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            note("")
            continue
        if line.startswith("/"):
            _command(talk, line)
        elif line:
            _answer(talk, line)


def _answer(talk: Conversation, line: str) -> None:
    """One answer; Ctrl-C stops it, an error is told and the conversation goes on."""
    try:
        _print(talk, line)
    except KeyboardInterrupt:
        note("\n(stopped)")
    except CliError as error:
        tell(error.what, error.hint)


def _command(talk: Conversation, line: str) -> None:
    word, _, rest = line.partition(" ")
    if word == "/reset":
        talk.reset()
        note("Starting anew.")
    elif word == "/model" and rest.strip():
        talk.model = rest.strip()
        note(f"Talking to {talk.model}.")
    else:
        note(_HELP)


def _print(talk: Conversation, prompt: str) -> None:
    pieces = talk.ask(prompt)
    try:
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
    finally:
        # At once, not when the generator happens to be collected: it holds the connection.
        pieces.close()
    say()


def _pieces(answer: http.client.HTTPResponse) -> Iterator[str]:
    from lumen.wire.sse import DONE, SseError, SseParser

    parser = SseParser()
    finished = False
    while data := answer.read1(_BLOCK):
        try:
            payloads = parser.feed(data)
        except SseError as error:
            raise CliError(f"the answer cannot be read: {error}") from None
        for payload in payloads:
            if payload == DONE:
                return
            event = _event(payload)
            finished = finished or any(choice.get("finish_reason") for choice in event.get("choices", []))
            yield from (c["delta"]["content"] for c in event.get("choices", []) if c.get("delta", {}).get("content"))
    if not finished:
        raise CliError("the answer ended in the middle", "see `lumen logs`")


def _event(payload: bytes) -> dict[str, Any]:
    try:
        event = json.loads(payload)
    except ValueError:
        raise CliError("the answer cannot be read: an event is not JSON") from None
    if not isinstance(event, dict):
        raise CliError("the answer cannot be read: an event is not an object")
    if "error" in event:
        raise CliError(str((event["error"] or {}).get("message") or "the model failed"), "see `lumen logs`")
    return event


def _refusal(status: int, raw: bytes) -> str:
    try:
        return str(json.loads(raw)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the endpoint answered with status {status}"
