"""How full and how busy the devices are, for whoever watches: asked of them only while somebody does."""

from __future__ import annotations

import asyncio
import logging

from lumen.hardware.readings import Monitor, Reading

_logger = logging.getLogger(__name__)

# Seconds after which what a device said is too old to be shown on.
_OLD = 1.0


class Glance:
    """The last reading of every device. Owned by the event loop; devices are asked in a thread, one look at a time."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._readings: tuple[Reading, ...] = ()
        self._looked = float("-inf")
        self._look: asyncio.Task[None] | None = None

    def readings(self) -> tuple[Reading, ...]:
        """What is known now, without waiting; where that is old, a look begins whose outcome the next call tells."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._looked > _OLD and (self._look is None or self._look.done()):
            self._looked = loop.time()
            self._look = loop.create_task(self._ask())
        return self._readings

    async def close(self) -> None:
        """Wait for a look that is under way."""
        if self._look is not None:
            await asyncio.wait({self._look})

    async def _ask(self) -> None:
        try:
            self._readings = await asyncio.to_thread(self._monitor.read)
        except OSError as trouble:
            _logger.warning("the memory of this machine cannot be read: %s", trouble.strerror)
