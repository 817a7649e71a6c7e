"""Model files: where they come from, how they are fetched and kept.

`resolve` looks at the disk, `fetch` and `reachable` at the network. The network's parts are imported when they
are called, so that listing models costs no HTTP client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lumen.engines.base import ModelFiles
from lumen.hub.store import Manifest, Store, adapter, files_of, resolve
from lumen.paths import Paths

if TYPE_CHECKING:
    from lumen.config.schema import Hub
    from lumen.hub.progress import Progress

__all__ = ["Manifest", "Store", "adapter", "fetch", "reachable", "resolve"]


async def fetch(
    reference: str,
    paths: Paths,
    hub: Hub,
    progress: Progress | None = None,
    *,
    revision: str | None = None,
    name: str | None = None,
) -> ModelFiles:
    """Have a model on this disk: found, resumed or downloaded, verified by digest, recorded in the store.

    Raises:
        HubError, ConfigError: what is wrong and what to do.
        OSError: the disk cannot be written.
    """
    found = resolve(reference, paths) if revision is None else None
    if found is not None:
        return found
    from lumen.hub.pull import Puller

    store = Store(paths.models_dir)
    manifest = await Puller(store, hub).pull(reference, revision=revision, name=name, progress=progress)
    return files_of(manifest, store)


async def reachable(endpoint: str | None, timeout: float = 2.0) -> bool:
    """Whether a hub (`None`: the public one) answers at all within `timeout` seconds."""
    from lumen.hub.client import PUBLIC_HUB, answers

    return await answers(endpoint or PUBLIC_HUB, timeout)
