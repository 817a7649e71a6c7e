"""Write docs/cli.md from the commands themselves: `python -m tools.cli_docs`; with `--check` only compare.

What the file says of an option is what `--help` says of it, word for word.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.generated import put

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docs" / "cli.md"
_BEGINNING = """\
# The command line

Written by `python -m tools.cli_docs` from the commands themselves; a test holds it to them.

"""


def document() -> str:
    """The whole file."""
    # Neither the terminal nor the environment of whoever writes it may show.
    os.environ.pop("LUMEN_URL", None)
    from lumen_cli.examples import ROOT as ENDING
    from lumen_cli.main import COMMANDS, app
    from typer.main import get_command

    root = get_command(app)
    lines = [_BEGINNING, *_section(root, ["lumen"], None), *_plain(ENDING), "\n## Commands\n\n"]
    lines += [f"- [`lumen {name}`](#lumen-{name}): {short}\n" for name, (_, short) in COMMANDS.items()]
    for command, path, parent in _below(root, ["lumen"], None):
        lines += ["\n", *_section(command, path, parent)]
    return "".join(lines)


def _below(command: Any, path: list[str], parent: Any) -> Iterator[tuple[Any, list[str], Any]]:
    """Every command below this one, with its path and the context around it."""
    context = _context(command, path, parent)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        yield found, [*path, name], context
        if hasattr(found, "list_commands"):
            yield from _below(found, [*path, name], context)


def _context(command: Any, path: list[str], parent: Any) -> Any:
    return command.context_class(command, info_name=path[-1], parent=parent, **command.context_settings)


def _section(command: Any, path: list[str], parent: Any) -> list[str]:
    context = _context(command, path, parent)
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f"{'#' * min(len(path), 3)}{'#' if len(path) == 1 else ''} {' '.join(path)}\n\n"]
    lines += [f"```\n{' '.join(path)} {usage}\n```\n\n"]
    lines += [f"{_joined(paragraph)}\n\n" for paragraph in (command.help or "").split("\n\n")]
    lines += _parameters(command, context)
    words = " ".join(path[1:])
    from lumen_cli.examples import EXAMPLES, MORE

    if words in EXAMPLES:
        lines += ["\n```sh\n", *(f"lumen {line}  # {what}\n" for line, what in EXAMPLES[words]), "```\n"]
    if len(path) == 2 and (more := MORE.get(path[1])) is not None:
        target = more.removeprefix("docs/")
        lines += [f"\nMore: [{target}]({target})\n"]
    return lines


def _parameters(command: Any, context: Any) -> list[str]:
    found = [record for parameter in command.get_params(context) if (record := parameter.get_help_record(context))]
    # That there is help stands once, at the top.
    shown = found if context.parent is None else [one for one in found if "--help" not in one[0]]
    return [f"- `{name}`: {_joined(said)}\n" for name, said in shown]


def _plain(ending: str) -> list[str]:
    """What `lumen --help` ends with, as it stands there."""
    blocks = [block.replace("\b\n", "").strip("\n") for block in ending.split("\n\n")]
    return ["\n```\n", "\n\n".join(blocks), "\n```\n"]


def _joined(text: str) -> str:
    return " ".join(text.replace("\b", "").split())


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "cli")]
    put(FILE, document(), "tools.cli_docs")
