"""Reads a table of prompts and of how each model did on them: `prompt`, `ok:<model>`, maybe `outchars:<model>`,
`cost:<model>` and groups."""

from __future__ import annotations

import csv
import gzip
import io
import math
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from lumen_cli.errors import USAGE, CliError

OK, CHARS, COST = "ok:", "outchars:", "cost:"
# Longer cells than any prompt that a router reads; the csv module's own limit is shorter.
_LONGEST = 8 << 20


@dataclass(frozen=True, slots=True)
class Matrix:
    """The rows that have a result of both models. `ok`: (weak, strong). `chars`, `costs`: the same for lengths and
    costs of answers, NaN where unknown. `group`: the value of the column that was asked for, empty without one."""

    prompts: list[str]
    ok: list[tuple[float, float]]
    chars: list[tuple[float, float]]
    costs: list[tuple[float, float]]
    group: list[str]
    left_out: int


def read(path: Path, weak: str, strong: str, group: str | None) -> Matrix:
    """Read `path` (CSV, or CSV in gzip).

    Raises:
        CliError: the file cannot be read, a column is missing (the ones there are named), or a cell is no result.
    """
    with _opened(path) as text:
        return _rows(path, csv.DictReader(text), weak, strong, group)


def columns(path: Path) -> list[str]:
    """The names of the columns.

    Raises:
        CliError: the file cannot be read.
    """
    with _opened(path) as text:
        return next(csv.reader(text), [])


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    csv.field_size_limit(min(_LONGEST, sys.maxsize))
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if packed else path.open("rb") as raw:
            yield io.TextIOWrapper(raw, "utf-8-sig", newline="")
    except OSError as error:
        raise CliError(f"{path}: {error.strerror or error}", code=USAGE) from None
    except (UnicodeDecodeError, csv.Error, EOFError, zlib.error) as error:
        raise CliError(f"{path} is no CSV file in UTF-8: {error}", code=USAGE) from None


def _rows(path: Path, reader: csv.DictReader[str], weak: str, strong: str, group: str | None) -> Matrix:
    columns = list(reader.fieldnames or ())
    names = [_column(path, columns, model) for model in (weak, strong)]
    for needed in ("prompt", *([group] if group else ())):
        if needed not in columns:
            others = ", ".join(name for name in columns if not name.startswith((OK, CHARS, COST)))
            raise CliError(f"{path} has no column '{needed}'", f"it has: {others or 'none'}", code=USAGE)
    for needed in ("prompt", *names, *([group] if group else ())):
        if columns.count(needed) > 1:
            raise CliError(f"{path} has the column '{needed}' twice", "remove one of them", code=USAGE)
    found = Matrix([], [], [], [], [], 0)
    missing = 0
    for row in reader:
        results = [_result(path, reader.line_num, name, row[name]) for name in names]
        if any(math.isnan(result) for result in results):
            missing += 1
            continue
        found.prompts.append(row["prompt"] or "")
        found.ok.append((results[0], results[1]))
        for kind, into in ((CHARS, found.chars), (COST, found.costs)):
            weak_one, strong_one = (_amount(row.get(kind + name[len(OK) :])) for name in names)
            into.append((weak_one, strong_one))
        found.group.append((row[group] or "") if group else "")
    return Matrix(found.prompts, found.ok, found.chars, found.costs, found.group, missing)


def _column(path: Path, columns: Sequence[str], model: str) -> str:
    name = model if model.startswith(OK) else OK + model
    if name not in columns:
        models = ", ".join(column[len(OK) :] for column in columns if column.startswith(OK))
        raise CliError(f"{path} has no column '{name}'", f"it has results of: {models or 'no model'}", code=USAGE)
    return name


def _result(path: Path, line: int, name: str, cell: str | None) -> float:
    if cell is None or not cell.strip():
        return math.nan
    text = cell.strip().lower()
    try:
        value = {"true": 1.0, "false": 0.0}.get(text)
        value = float(text) if value is None else value
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 1.0:
        raise CliError(f"{path}, line {line}: '{cell}' in '{name}' is no result", "write 0, 1 or nothing", code=USAGE)
    return value


def _amount(cell: str | None) -> float:
    try:
        value = float(cell) if cell else math.nan
    except ValueError:
        return math.nan
    return value if value >= 0 and math.isfinite(value) else math.nan
