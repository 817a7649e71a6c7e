"""The admin calls of usage, keys and the audit log, each a row of `admin.Call`; `lumen/clerk.py` does them.

Whoever may look sees what was used. Keys are an administrator's: who may make one may make one for themselves. What is
looked at of keys and of the log is itself written to the log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lumen.core.roles import Role

# Method, path, role, what it does, fields of the body, status, prefix, whether it only reads and is not written down.
Row = tuple[str, str, Role, Callable[..., Any], tuple[str, ...], int, bool, bool]


def _post(path: str, role: Role, do: Callable[..., Any], *fields: str, reads: bool = False) -> Row:
    return ("POST", path, role, do, fields, 200, False, reads)


CALLS: tuple[Row, ...] = (
    _post("/admin/usage", "viewer", lambda o, by, since: o.clerk.usage(by, since), "by", "since", reads=True),
    _post("/admin/keys", "admin", lambda o: o.clerk.keys()),
    _post("/admin/keys/add", "admin", lambda o, name, options: o.clerk.add_key(name, options), "name", "options"),
    _post("/admin/keys/set", "admin", lambda o, name, options: o.clerk.set_key(name, options), "name", "options"),
    _post("/admin/keys/revoke", "admin", lambda o, name: o.clerk.revoke_key(name), "name"),
    _post("/admin/audit", "operator", lambda o, action, last: o.clerk.audit(action, last), "action", "last"),
    _post("/admin/audit/verify", "operator", lambda o, last: o.clerk.verify(last), "last"),
)
