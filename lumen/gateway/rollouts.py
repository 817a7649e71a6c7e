"""The admin calls of shadows, canaries, learning and feedback, each a row of `admin.Call`.

What starts something needs the role of an administrator: it spends money, changes routes and can name programs to run.
So does a report, which may show what clients wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lumen.core.roles import Role

# Method, path, role, what it does, fields of the body, status, prefix.
Row = tuple[str, str, Role, Callable[..., Any], tuple[str, ...], int, bool]
_WHO = "operator"
_ASKED = ("route", "action", "options")

CALLS: tuple[Row, ...] = (
    ("GET", "/admin/trials", "viewer", lambda operator: operator.learning.status(), (), 200, False),
    ("GET", "/admin/shadow/", "admin", lambda operator, route: operator.learning.shadow_report(route), (), 200, True),
    ("GET", "/admin/canary/", "admin", lambda operator, route: operator.learning.canary_report(route), (), 200, True),
    ("GET", "/admin/learn/", "viewer", lambda operator, route: operator.learning.versions(route), (), 200, True),
    (
        "POST",
        "/admin/shadow",
        "admin",
        lambda operator, route, action, options: operator.learning.shadow(route, action, options),
        _ASKED,
        200,
        False,
    ),
    (
        "POST",
        "/admin/canary",
        "admin",
        lambda operator, route, action, options: operator.learning.canary(route, action, options, _WHO),
        _ASKED,
        200,
        False,
    ),
    (
        "POST",
        "/admin/learn",
        "admin",
        lambda operator, route, action, options: operator.learning.learn(route, action, options, _WHO),
        _ASKED,
        200,
        False,
    ),
    (
        "POST",
        "/admin/feedback",
        "operator",
        lambda operator, request, score: operator.learning.feedback(request, score),
        ("request", "score"),
        200,
        False,
    ),
)
