"""Usage to cost, exactly; and the bounds that a hold is made of. Pure.

Zero is not missing: a count that a target reports is taken as it is, a count that it does not report (`None`) is
estimated from what the gateway itself sent and received, and the bill is then marked as estimated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from lumen.core.money import MOST, Price, Tier

# Bytes of text a token stands for, where nothing better is known: an estimate, used for bills marked as such.
_BYTES_PER_TOKEN = 4
# No answer has more tokens; a target that reports more is not believed.
_ABSURD = 10**9
# Upper bounds, see `input_bound`. Images: the dearest published rule is 48,169 tokens for one image.
_FRAME = 256
_TOOLS = 1024
_IMAGE = 50_000
_OPAQUE = 1_000_000


class Tokens(Struct, frozen=True, gc=False):
    """What a target says it used; `None`: it does not say.

    `input` counts every input token, `cached` and `cache_write` those of them read from or written to a cache;
    `output` counts every output token, `reasoning` those of them that are thoughts.
    """

    input: int | None = None
    output: int | None = None
    cached: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None


class Seen(Struct, frozen=True, gc=False):
    """What the gateway saw of an attempt: bytes sent and received as text, token ids and events with content.

    `input_tokens`: what another target has counted in the same input; nearer than any guess from bytes.
    """

    input_bytes: int = 0
    output_bytes: int = 0
    token_ids: int = 0
    pieces: int = 0
    input_tokens: int | None = None


class Bill(Struct, frozen=True, gc=False):
    """What one attempt came to. `cost`: pico-dollars. `estimated`: some count was not reported."""

    tokens: Tokens
    cost: int
    estimated: bool


NOTHING = Bill(Tokens(), 0, False)


def bill(price: Price, reported: Tokens | None, seen: Seen, micros: int = 0) -> Bill:
    """The bill of one attempt that a target worked on.

    Args:
        reported: the target's own counts; `None` where it broke off before it told them.
        micros: microseconds of the target's device, for prices by the second.
    """
    told = reported or Tokens()
    input_tokens, output_tokens = believable(told.input), believable(told.output)
    estimated = input_tokens is None or output_tokens is None
    if input_tokens is None:
        input_tokens = estimate_input(seen.input_bytes) if seen.input_tokens is None else seen.input_tokens
    if output_tokens is None:
        output_tokens = max(seen.token_ids, seen.pieces, -(-seen.output_bytes // _BYTES_PER_TOKEN))
    cached = min(believable(told.cached) or 0, input_tokens)
    written = min(believable(told.cache_write) or 0, input_tokens - cached)
    rate = price.at(input_tokens)
    cost = (
        (input_tokens - cached - written) * rate.input
        + cached * _or(rate.cached_input, rate.input)
        + written * _or(rate.cache_write, rate.input)
        + output_tokens * rate.output
        + price.per_request
        + _seconds(price, micros)
    )
    counted = Tokens(input_tokens, output_tokens, told.cached, told.cache_write, told.reasoning)
    return Bill(counted, min(cost, MOST), estimated)


def units(price: Price, images: int, seconds: float) -> int:
    """What images and seconds of audio cost, in pico-dollars."""
    return min(price.per_image * images + math.ceil(price.per_audio_second * seconds), MOST)


def believable(count: int | None) -> int | None:
    """A reported count; `None` where it cannot be one."""
    return count if count is not None and 0 <= count <= _ABSURD else None


def estimate_input(sent_bytes: int) -> int:
    """About how many tokens so many bytes of a request are: neither a bound nor exact."""
    return -(-sent_bytes // _BYTES_PER_TOKEN)


def input_bound(
    body_bytes: int, *, tools: bool = False, images: int = 0, opaque: int = 0, context: int | None = None
) -> int:
    """More input tokens than a target can make of a request, without its tokenizer.

    A token of a byte-level or byte-fallback vocabulary stands for at least one byte of text, so the request's own
    JSON bounds the text; its keys and brackets (over 25 bytes a message) pay for what a chat template puts around
    a message. Added: 256 for a template's own opening, 1,024 for the instructions a vendor adds to tools, 50,000 an
    image, 1,000,000 for audio or a file. A context window, where it is known, bounds all of it.

    Args:
        body_bytes: the JSON request without the data of images and files. `context`: the target's window in tokens.
    """
    bound = body_bytes + _FRAME + _TOOLS * tools + _IMAGE * images + _OPAQUE * opaque
    return bound if context is None else min(bound, context)


def worst(price: Price, input_tokens: int, output_tokens: int, micros: int = 0) -> int:
    """The most that a request within these bounds can cost, in pico-dollars, whatever is cached or tiered."""
    dearest = price.dearest * input_tokens + price.output * output_tokens
    for tier in price.tiers:
        if input_tokens > tier.over:
            dearest = max(dearest, tier.dearest * input_tokens + tier.output * output_tokens)
    if price.per_second:
        dearest += _seconds(price, micros)
    return min(dearest + price.per_request, MOST)


def output_within(price: Price, amount: int, input_tokens: int, micros: int = 0) -> int | None:
    """The most output tokens for which `worst` stays within `amount`; `None`: any number. Negative: not even none."""
    left = amount - price.per_request - _seconds(price, micros)
    if left < 0:
        return -1
    found: list[int] = []
    for rate in _reached(price, input_tokens):
        after_input = left - rate.dearest * input_tokens
        if after_input < 0:
            return -1
        if rate.output:
            found.append(after_input // rate.output)
    return min(found, default=None)


def meets(price: Price | None, ceiling: int) -> bool:
    """Whether no token of this target costs more than `ceiling` (pico-dollars); an unknown price never does."""
    return price is not None and ceiling_needed(price) <= ceiling


def ceiling_needed(price: Price) -> int:
    """The lowest price ceiling, in pico-dollars a token, that this target meets."""
    steps: tuple[Price | Tier, ...] = (price, *price.tiers)
    return max(max(rate.dearest, rate.output) for rate in steps)


def _reached(price: Price, input_tokens: int) -> Sequence[Price | Tier]:
    if not price.tiers:
        return (price,)
    return (price, *(tier for tier in price.tiers if input_tokens > tier.over))


def _or(own: int | None, usual: int) -> int:
    return usual if own is None else own


def _seconds(price: Price, micros: int) -> int:
    """The cost of a time, rounded up to a pico-dollar."""
    return -(-price.per_second * micros // 1_000_000)
