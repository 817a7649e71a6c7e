"""`lumen audit`: who changed what."""

from __future__ import annotations

from dataclasses import asdict

import typer

from lumen.paths import paths as find_paths
from lumen_cli.errors import FAILED
from lumen_cli.output import JSON, command, moment, note, print_json, say, table

app = command("Who changed what: routes, keys, providers, targets, models. The log only grows, and can be checked.")


@app.command()
def ls(
    last: int = typer.Option(50, "--last", "-n", min=1, help="So many of the newest entries."),
    action: str | None = typer.Option(None, help="Only what begins like this, such as `route` or `key.revoke`."),
    json_output: bool = JSON,
) -> None:
    """List the newest entries, oldest first."""
    from lumen.audit import AuditLog

    entries = [e for e in AuditLog(find_paths().audit_file).entries() if e.action.startswith(action or "")][-last:]
    if json_output:
        print_json([asdict(entry) for entry in entries])
        return
    rows = [
        (entry.seq, moment(entry.at), entry.who, entry.action, entry.subject, _told(dict(entry.details)))
        for entry in entries
    ]
    table(("#", "when", "who", "action", "what", "details"), rows)


@app.command()
def verify(
    last: str | None = typer.Option(None, help="A hash that an earlier check printed; it must be in the log."),
    json_output: bool = JSON,
) -> None:
    """Check that nothing was changed, removed or inserted; prints the last hash, to be kept elsewhere."""
    from lumen.audit import AuditLog

    verdict = AuditLog(find_paths().audit_file).verify(last)
    if json_output:
        print_json(asdict(verdict))
    elif verdict.broken is None:
        say(f"{verdict.entries} entries, all as they were written; last hash {verdict.last}")
    else:
        note(f"the audit log is broken at entry {verdict.broken}: {verdict.why}; {verdict.entries} before it are sound")
    if verdict.broken is not None:
        raise typer.Exit(FAILED)


def _told(details: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in details.items()) or "-"
