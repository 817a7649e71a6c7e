"""`lumen login`: sign on at a gateway elsewhere."""

from __future__ import annotations

import getpass
import json
import sys
from pathlib import Path
from typing import Any

import typer

from lumen.paths import paths as find_paths
from lumen_cli import choice, contexts, remote, signon
from lumen_cli.errors import USAGE, CliError
from lumen_cli.output import command, note, say

app = command()
_TIMEOUT = 10.0
_LARGEST = 64 * 1024


@app.command()
def login(
    url: str | None = typer.Option(None, help="The gateway, such as https://lumen.example.com."),
    issuer: str | None = typer.Option(None, help="The issuer it must name; default: whichever it names."),
    key: bool = typer.Option(False, "--key", help="With a key that has a role, or a session's token, from the input."),
    ca: Path | None = typer.Option(None, help="Authorities to trust besides the system's: a PEM file."),
    cert: Path | None = typer.Option(None, help="The certificate to show there, where one is asked for."),
    cert_key: Path | None = typer.Option(None, help="The key of that certificate."),
) -> None:
    """Sign on at a gateway elsewhere, so that `lumen --url` reaches it.

    You agree in a browser, on this machine or any other. What is kept is in a file that only you can read.
    """
    where = url or choice.chosen()
    if where is None:
        raise CliError("which gateway?", "write `lumen login --url https://HOST:PORT`", code=USAGE)
    context = contexts.Context(contexts.address(where), "", _file(ca), _file(cert), _file(cert_key))
    context = _with_key(context) if key else _signed_on(context, issuer)
    told = ask(context, "/admin/whoami")
    contexts.contexts(find_paths().config_dir).change(context.name, lambda before: context)
    say(f"Signed on at {context.url} as {told['name']} ({told['role']}). Use it: lumen --url {context.name} status")


def _file(path: Path | None) -> str | None:
    return None if path is None else str(path.expanduser().absolute())


def _with_key(context: contexts.Context) -> contexts.Context:
    given = getpass.getpass("Key: ") if sys.stdin.isatty() else sys.stdin.readline()
    token = given.strip()
    if not token or not all("!" <= c <= "~" for c in token):
        raise CliError("no key was given", "pipe it in, or type it when asked", code=USAGE)
    return contexts.Context(context.url, token, context.ca, context.cert, context.cert_key, signon.ends(token))


def _signed_on(context: contexts.Context, issuer: str | None) -> contexts.Context:
    """Through the issuer that the gateway names."""
    told = ask(context, "/admin/auth")
    named = told.get("issuer")
    if named is None:
        raise CliError(f"{context.url} knows no issuer", "sign on with a key that has a role: `lumen login --key`")
    if issuer is not None and issuer != named:
        raise CliError(f"{context.url} names another issuer: {named}", "check both addresses")
    use = told.get("token")
    if use not in ("id_token", "access_token"):
        # Anything else is not for a gateway to see, whatever it asks for.
        raise CliError(f"{context.url} asks for a token that is none of its business", "check the address")
    ready = contexts.Context(
        context.url,
        "",
        context.ca,
        context.cert,
        context.cert_key,
        issuer=str(named),
        client_id=str(told.get("client_id")),
        use=use,
    )
    endpoints = signon.discover(ready)
    asked = signon.begin(ready, endpoints, [str(scope) for scope in told.get("scopes", ())])
    note(f"Open {asked.complete or asked.uri} in a browser and confirm the code {asked.user_code}.")
    return signon.wait(ready, endpoints, asked)


def ask(context: contexts.Context, path: str, method: str = "GET") -> dict[str, Any]:
    """One call before, or without, a sign-on that is kept.

    Raises:
        CliError: it does not answer, or refuses.
    """
    door = remote.Afar(context, None)
    headers = door.headers() if context.token else {}
    connection = door.connection(_TIMEOUT)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        found = json.loads(answer.read(_LARGEST))
    except OSError as error:
        raise CliError(f"{context.url} cannot be reached: {error}", "check the address; --ca for its own CA") from None
    except ValueError:
        raise CliError(f"{context.url} is not a Lumen gateway", "check the address") from None
    finally:
        connection.close()
    if answer.status != 200:
        said = found.get("error") if isinstance(found, dict) else None
        message = said.get("message") if isinstance(said, dict) else f"status {answer.status}"
        raise CliError(f"{context.url}: {message}")
    if not isinstance(found, dict):
        raise CliError(f"{context.url} is not a Lumen gateway", "check the address")
    return found
