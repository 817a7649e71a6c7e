"""The commands' help is whole, its examples are what the commands take, and docs/cli.md says what it says."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from lumen_cli.examples import EXAMPLES, MORE
from lumen_cli.main import COMMANDS, app
from typer.main import get_command

from tests.cli.harness import Ran
from tools.cli_docs import FILE, ROOT, document


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "list_commands"):
        yield " ".join(path), command
        return
    context = command.context_class(command)
    if path and command.invoke_without_command:
        yield " ".join(path), command
    for name in command.list_commands(context):
        yield from leaves(command.get_command(context, name), (*path, name))


ALL = dict(leaves(get_command(app)))


def test_the_document_is_what_the_commands_say() -> None:
    # Compared line by line, so that a difference shows where it is.
    assert FILE.read_text("utf-8").splitlines() == document().splitlines(), "run: python -m tools.cli_docs"


def test_every_command_has_examples_and_every_example_its_command() -> None:
    assert set(EXAMPLES) == set(ALL)
    assert set(MORE) <= set(COMMANDS)
    for file in MORE.values():
        assert (ROOT / file).is_file(), file


@pytest.mark.parametrize("path", ALL)
def test_an_example_is_what_its_command_takes(path: str) -> None:
    for line, what in EXAMPLES[path]:
        words = shlex.split(line)
        assert words[: len(path.split())] == path.split(), line
        assert what and what == what.strip() and not what.endswith(".")
        # Taken apart and converted as when it is called; nothing is carried out.
        context = ALL[path].make_context(path, words[len(path.split()) :])
        assert not context.args


@pytest.mark.parametrize("path", ALL)
def test_help_leaves_nothing_unsaid(path: str) -> None:
    command = ALL[path]
    assert command.help and command.help.strip()[0].isupper() and len(command.help) > 15
    context = command.context_class(command)
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        assert record is not None and record[1].strip(), (path, parameter.name)


def test_help_ends_with_examples(lumen: Callable[..., Ran]) -> None:
    shown = lumen("key", "add", "--help").out
    for line, what in EXAMPLES["key add"]:
        assert f"lumen {line}\n" in shown and what in shown
    assert "docs/security.md" in shown
    for below in ("ls", "set", "revoke"):
        assert "Examples:" in lumen("key", below, "--help").out
    root = lumen("--help").out
    assert "Exit status:" in root and "LUMEN_HOME" in root
