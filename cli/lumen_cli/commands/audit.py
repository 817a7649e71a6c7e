"""`lumen audit`: who changed what."""

from __future__ import annotations

from dataclasses import asdict

import typer

from lumen.paths import paths as find_paths
from lumen_cli import choice
from lumen_cli.client import Admin
from lumen_cli.errors import FAILED
from lumen_cli.output import JSON, command, moment, note, print_json, say, table

app = command(
    "Who changed what: routes, keys, providers, targets, models. The log only grows, and can be checked. A gateway "
    "elsewhere (`--url`) shows it to whoever has the role operator."
)


@app.command()
def ls(
    last: int = typer.Option(50, "--last", "-n", min=1, max=1000, help="So many of the newest entries."),
    action: str | None = typer.Option(None, help="Only what begins like this, such as `route` or `key.revoke`."),
    json_output: bool = JSON,
) -> None:
    """List the newest entries, oldest first."""
    paths = find_paths()
    if choice.chosen() is None:
        from lumen.clerk import entries

        found = entries(paths, action or "", last)
    else:
        found = Admin(paths.admin_socket).post("/admin/audit", {"action": action or "", "last": str(last)})
    if json_output:
        print_json(found)
        return
    rows = [
        (one["seq"], moment(one["at"]), one["who"], one["action"], one["subject"], _told(one["details"]))
        for one in found
    ]
    table(("#", "when", "who", "action", "what", "details"), rows)


@app.command()
def verify(
    last: str | None = typer.Option(None, help="A hash that an earlier check printed; it must be in the log."),
    json_output: bool = JSON,
) -> None:
    """Check that nothing was changed, removed or inserted; prints the last hash, to be kept elsewhere."""
    from lumen.audit import AuditLog, Verdict

    paths = find_paths()
    if choice.chosen() is None:
        verdict = AuditLog(paths.audit_file).verify(last)
    else:
        verdict = Verdict(**Admin(paths.admin_socket, timeout=60).post("/admin/audit/verify", {"last": last or ""}))
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
