"""What somebody may do beyond asking models: `viewer` looks, `operator` steers, `admin` changes and ends. Pure.

A key without a role is for inference only. A role holds everything that the lesser ones do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

Role = Literal["viewer", "operator", "admin"]
# From the least to the greatest.
ROLES: tuple[Role, ...] = get_args(Role)
_RANK = {role: rank for rank, role in enumerate(ROLES)}


def covers(held: Role, needed: Role) -> bool:
    """Whether who has the role `held` may do what `needed` may."""
    return _RANK[held] >= _RANK[needed]


def greatest(held: Iterable[Role]) -> Role | None:
    """The greatest of some roles; `None` of none."""
    return max(held, key=_RANK.__getitem__, default=None)
