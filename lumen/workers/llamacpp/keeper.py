"""Between the prefix cache and the disk: what was kept is found in the background, what is worth it is kept."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from functools import partial

from lumen.workers.llamacpp.caller import may_keep
from lumen.workers.llamacpp.metrics import Counters
from lumen.workers.llamacpp.prefix import PrefixCache, State
from lumen.workers.llamacpp.snapshots import LEAST, SECONDS, Kept, Snapshots

log = logging.getLogger("lumen.worker.keeper")


_PATIENCE = 2.0
"""Seconds."""


class Keeper:
    """`begin` once; everything else on the engine thread."""

    def __init__(self, snapshots: Snapshots, counters: Counters) -> None:
        self._snapshots = snapshots
        self._counters = counters
        self._thread = threading.Thread(target=self._open, name="keeper", daemon=True)
        self._patience = _PATIENCE
        self._found: list[Kept] = []
        self._usable = False

    def begin(self) -> None:
        """Look for what there is, on a thread of its own: no start waits for a disk."""
        self._thread.start()

    def _open(self) -> None:
        try:
            self._found = self._snapshots.open()
        except OSError as error:
            log.warning("prefixes cannot be kept: %s", error)
            return
        self._counters.kept_prefixes = self._snapshots.count
        self._usable = True

    def look(self, cache: PrefixCache, prompts: Iterable[list[int]]) -> None:
        """Make known to the cache what was found since it was asked last; none of it is read before a prompt begins so.

        That may be what another process of this model has left meanwhile. Waits a little, once, where `prompts` could
        be of use: a process that is asked as soon as it is ready has most likely been woken for this very prompt.
        """
        if self._patience and self._thread.is_alive() and any(len(prompt) >= LEAST for prompt in prompts):
            self._thread.join(self._patience)
            self._patience = 0.0
        if not self._usable:
            return
        found, self._found = self._found, []
        try:
            found += self._snapshots.news() if self._snapshots.changed() else []
        except OSError as error:
            self._give_up(error)
        for kept in reversed(found):
            if may_keep(kept.salt):
                cache.adopt(kept.tokens, kept.salt, partial(self._fetch, kept))
        self._counters.kept_prefixes = self._snapshots.count

    def keep(self, cache: PrefixCache) -> None:
        """Write what the cache has to the disk, the most recently used first; never what must not be kept."""
        self._thread.join(SECONDS)
        if not self._usable:
            return
        try:
            self._snapshots.save(one for one in cache.kept() if may_keep(one[1]) and len(one[0]) >= LEAST)
        except FileNotFoundError as error:
            self._give_up(error)
        except OSError as error:
            log.warning("prefixes cannot be kept: %s", error)
        self._counters.kept_prefixes = self._snapshots.count

    def _give_up(self, error: OSError) -> None:
        """The folder was taken away: nothing may be kept any more."""
        self._usable = False
        log.warning("prefixes are not kept any more: %s", error)

    def _fetch(self, kept: Kept) -> State | None:
        state = self._snapshots.fetch(kept)
        if state is not None:
            self._counters.restored_prefixes += 1
        return state
