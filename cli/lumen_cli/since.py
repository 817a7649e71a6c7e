"""How far back: `24h`, `7d`, or a date."""

from __future__ import annotations

from datetime import UTC, datetime

from lumen_cli.errors import USAGE, CliError


def moment_of(since: str, now: float) -> int:
    """The Unix second of a date (UTC), or so long before `now`.

    Raises:
        CliError: not a time.
    """
    from lumen.config.units import parse_duration

    try:
        if since.count("-") == 2:
            return int(datetime.strptime(since.strip(), "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
        return max(int(now - parse_duration(since)), 0)
    except ValueError:
        raise CliError(
            f"--since {since}: not a time", "write 24h, 7d or a date such as 2026-11-01", code=USAGE
        ) from None
