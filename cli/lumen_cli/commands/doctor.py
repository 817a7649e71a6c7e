"""`lumen doctor`: what is wrong on this machine and how to mend it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lumen.paths import paths as find_paths
from lumen_cli.errors import FAILED
from lumen_cli.output import JSON, command, console, note, print_json
from lumen_cli.settings import CONFIG

if TYPE_CHECKING:
    from lumen_cli.health import Finding

app = command()

_MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "bad": ("✗", "red")}


@app.command()
def doctor(
    config: Path | None = CONFIG,
    bundle: Path | None = typer.Option(
        None, metavar="FILE", help="Write an archive for a report of a fault: nothing secret and nothing said is in it."
    ),
    json_output: bool = JSON,
) -> None:
    """Look at everything Lumen needs; ends with status 1 where something is broken.

    Machine, cards, engines, folders, configuration, ledger, the port and the running gateway; each finding comes with
    what mends it. Nothing is changed.
    """
    from lumen_cli.health import Patient, examine

    paths = find_paths()
    patient = Patient(paths, paths.config_file)
    used = config or (patient.status or {}).get("config")
    if used:
        patient.config_file = Path(used).expanduser().absolute()
    found = examine(patient)
    broken = any(finding.level == "bad" for finding in found)
    if bundle is not None:
        from lumen_cli.bundle import write

        into = bundle.expanduser().absolute()
        names = write(paths, patient.config_file, into, [asdict(finding) for finding in found])
        note(f"{into}: {', '.join(names)}. Look into it before you send it.")
    if json_output:
        print_json({"ok": not broken, "findings": [asdict(finding) for finding in found]})
    else:
        _draw(found)
    if broken:
        raise typer.Exit(FAILED)


def _draw(found: list[Finding]) -> None:
    from rich.text import Text

    out = console()
    for finding in found:
        mark, colour = _MARKS[finding.level]
        out.print(Text.assemble((mark, colour), f" {finding.check}: {finding.what}"), soft_wrap=True)
        if finding.mend and finding.level != "ok":
            out.print(Text(f"    → {finding.mend}"), soft_wrap=True)
    counts = {level: sum(finding.level == level for finding in found) for level in _MARKS}
    if counts["bad"] or counts["warn"]:
        out.print(f"\n{counts['bad']} broken, {counts['warn']} to look at, {counts['ok']} good.")
    else:
        out.print("\nAll is well.")
