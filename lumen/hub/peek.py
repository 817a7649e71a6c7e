"""A repository of the hub without pulling it: in which quantisations it has a model, and what that is made of.

The header of one file is fetched (some megabytes, most of it the vocabulary); the others have the same shapes, and the
listing tells their sizes.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from io import BytesIO
from pathlib import PurePosixPath

import aiohttp

from lumen.config.schema import Hub
from lumen.hub import client, gguf
from lumen.hub.anatomy import anatomy
from lumen.hub.choose import Choice, RemoteFile, choices, choose
from lumen.hub.errors import BadModelFileError, NetworkError
from lumen.hub.estimate_hf import Weights
from lumen.hub.fit import Variant, scaled
from lumen.hub.reference import FOLDER, HubModel
from lumen.hub.transport import RetryableError, Token, open_file, session
from lumen.hub.wanted import Limits

Fetch = Callable[[RemoteFile, int], Awaitable[bytes]]

_FIRST, _MOST = 1 << 20, gguf.MAX_HEADER
_LARGEST_CONFIG = 4 * 1024 * 1024


async def peek(reference: HubModel, hub: Hub, limits: Limits | None = None) -> list[Variant]:
    """Every form of the model that the repository has, or the one that `reference` names.

    Raises:
        HubError, ConfigError: what is wrong and what to do.
    """
    limits = limits or Limits()
    async with session(limits.stall, limits.connect, hub.connections) as http:
        listing = await client.listing(http, hub, reference)
        found = choices(listing.files) if reference.quant is None and reference.file is None else []
        found = found or [choose(reference, listing.files)]
        endpoint, token = client.endpoint_of(hub), client.token_of(hub)

        async def fetch(file: RemoteFile, count: int) -> bytes:
            url = client.file_url(endpoint, reference, listing.commit, file.path)
            return await _beginning(http, url, token, min(count, file.size))

        if found[0].quant == FOLDER:
            config = await fetch(found[0].files[0], _LARGEST_CONFIG)
            return [Variant("safetensors", found[0].size, Weights(_read(config), _weights(found[0])))]
        # The smallest first part: headers are alike, and its parts, if it is split, are the fewest bytes to look at.
        smallest = min(found, key=lambda choice: choice.size)
        parts = await _headers(smallest, fetch)
    body, headers = anatomy(parts), sum(part.data_offset for part in parts)
    # Headers hold the same in every quantisation; what is left are the tensors.
    sizes = [max(0, choice.size - headers) for choice in found]
    return [
        Variant(choice.quant or _stem(choice), choice.size, scaled(body, size))
        for choice, size in zip(found, sizes, strict=True)
    ]


async def _headers(choice: Choice, fetch: Fetch) -> tuple[gguf.Gguf, ...]:
    parts = []
    for file in choice.files:
        count = _FIRST
        while True:
            data = await fetch(file, count)
            try:
                parts.append(gguf.parse(BytesIO(data), file.size))
                break
            except BadModelFileError:
                # It may only be that the header goes on.
                if len(data) >= min(_MOST, file.size):
                    raise
                count *= 4
    return tuple(parts)


async def _beginning(http: aiohttp.ClientSession, url: str, token: Token | None, count: int) -> bytes:
    try:
        opened = await open_file(http, url, token, f"bytes=0-{count - 1}")
        data = bytearray()
        try:
            # A server without ranges sends the whole file: no more of it is read than was asked for.
            async for chunk in opened.response.content.iter_chunked(1 << 16):
                data += chunk
                if len(data) >= count:
                    break
        finally:
            opened.response.close()
        return bytes(data[:count])
    except (RetryableError, aiohttp.ClientError, TimeoutError, OSError) as error:
        raise NetworkError(f"the header of the model cannot be fetched: {error}; try again") from error


def _read(config: bytes) -> dict[str, object]:
    try:
        said = json.loads(config)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise BadModelFileError("the repository's config.json cannot be read")
    text = said.get("text_config")
    return {**said, **text} if isinstance(text, dict) else said


def _weights(choice: Choice) -> int:
    return sum(file.size for file in choice.files if file.path.endswith(".safetensors"))


def _stem(choice: Choice) -> str:
    return PurePosixPath(choice.files[0].path).stem
