"""What commands change, and whose words or keys they show, is written to the audit log.

What is asked of a running gateway, that writes down itself.
"""

from __future__ import annotations

from typing import Any

from lumen.owner import owner
from lumen.paths import paths as find_paths


def changed(action: str, subject: str, **details: Any) -> None:
    """Note a change or a look: `action` such as `route.set`, on `subject`. No secret may be among `details`.

    Raises:
        CliError: it was made, and could not be noted.
    """
    from lumen.audit import AuditLog
    from lumen_cli.errors import CliError

    try:
        AuditLog(find_paths().audit_file).add(action, subject, owner(), **details)
    except (OSError, TimeoutError) as error:
        raise CliError(
            f"{action} of {subject} was made, but could not be written to the audit log: {error}",
            "check it with `lumen audit verify`",
        ) from None
