"""`lumen provider price`: what a model of a provider costs, where no published list says it."""

from __future__ import annotations

from pathlib import Path

import typer

from lumen.paths import paths as find_paths
from lumen_cli.client import Admin
from lumen_cli.errors import USAGE, CliError
from lumen_cli.limits import NONE, checked
from lumen_cli.output import say
from lumen_cli.settings import CONFIG, config_file, reload
from lumen_cli.trail import changed

_RATES = ("input", "output", "cached_input", "cache_write")


def price(
    target: str = typer.Argument(metavar="NAME/MODEL", help="A model of a provider; `*` in it as in file names."),
    input: str | None = typer.Option(None, metavar="RATE", help="Tokens of a prompt, such as 0.60/1M; 0: free."),
    output: str | None = typer.Option(None, metavar="RATE", help="Tokens of an answer."),
    cached_input: str | None = typer.Option(None, metavar="RATE", help="Read from a cache; default: as the others."),
    cache_write: str | None = typer.Option(None, metavar="RATE", help="Written to a cache; default: as the others."),
    per_request: str | None = typer.Option(None, metavar="AMOUNT", help="Each request, such as 0.01usd."),
    per_image: str | None = typer.Option(None, metavar="AMOUNT", help="Each picture that was made."),
    per_audio_second: str | None = typer.Option(None, metavar="AMOUNT", help="Each second of audio written down."),
    config: Path | None = CONFIG,
) -> None:
    """Say what a model of a provider costs; it goes before published prices. What is not given stays, `none` lifts."""
    from lumen.config.edit import edit, set_price

    given = {"input": input, "output": output, "cached_input": cached_input, "cache_write": cache_write,
             "per_request": per_request, "per_image": per_image, "per_audio_second": per_audio_second}  # fmt: skip
    change = {name: _written(name, text) for name, text in given.items() if text is not None}
    provider, slash, model = target.partition("/")
    if not slash or not model:
        raise CliError(f"{target!r} is not NAME/MODEL", "write for example mine/llama", code=USAGE)
    if not change:
        raise CliError("nothing to set", f"write `lumen provider price {target} --input 0.60/1M`", code=USAGE)
    from lumen_cli.vendors import config_of, find_vendor

    paths = find_paths()
    admin = Admin(paths.admin_socket)
    path = config_file(config, paths, admin)
    find_vendor(provider, config_of(config))
    edit(path, lambda text: set_price(text, provider, model, change))
    changed("provider.price", target, **change)
    say(f"The price of {target} is written to {path}: {reload(admin, path)}.")


def _written(name: str, text: str) -> str | None:
    from lumen.core.money import parse_amount, parse_rate

    text = text.strip()
    if text.lower() == NONE:
        return None
    if name in _RATES:
        # Plain dollars a million tokens, as price lists have them.
        text = f"{text}/1M" if text.replace(".", "", 1).isdecimal() else text
        checked(name, text, parse_rate)
    else:
        checked(name, text, parse_amount)
    return text
