from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from lumen_cli.commands.top import _first


class Told:
    """An admin API that tells of devices only once it has been asked for a while."""

    async def events(self) -> AsyncGenerator[dict[str, Any], None]:
        yield {"number": 2, "ended": [{"id": "a"}, {"id": "b"}]}
        yield {"number": 2, "ended": []}
        yield {"number": 3, "ended": [{"id": "c"}], "devices": [{"name": "ram"}]}
        raise AssertionError("nothing more is asked for")


def test_one_frame_has_the_requests_of_those_before_it() -> None:
    frame = asyncio.run(_first(Told()))  # type: ignore[arg-type]
    assert frame == {"number": 3, "ended": [{"id": "a"}, {"id": "b"}, {"id": "c"}], "devices": [{"name": "ram"}]}
