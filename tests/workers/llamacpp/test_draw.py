"""A draw that is keyed anew draws what one made for that key draws, wherever this build keeps its seed."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.workers.llamacpp import draw
from lumen.workers.llamacpp.binding import lib
from lumen.workers.llamacpp.draw import Draw


class Chain:
    """A chain with nothing but a draw."""

    def __init__(self) -> None:
        made: Any = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        pointer = ctypes.cast(made, ctypes.c_void_p).value
        assert pointer is not None
        self.pointer = pointer
        self.draw = Draw(pointer)

    def drawn(self, logits: list[float]) -> int:
        return drawn(self.pointer, logits)


def drawn(sampler: int, logits: list[float]) -> int:
    candidates = (lib.llama_token_data * len(logits))(*((i, logit, 0.0) for i, logit in enumerate(logits)))
    array = lib.llama_token_data_array(candidates, len(logits), -1, False)
    draw._apply(sampler, ctypes.byref(array))
    return int(candidates[array.selected].id)


@pytest.fixture(scope="module", params=["seeded", "made afresh"])
def chain(request: pytest.FixtureRequest) -> Iterator[Chain]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "made afresh":
            patch.setattr(draw, "_seed_place", lambda: None)
        made = Chain()
        assert (made.draw._seed is None) == (request.param == "made afresh")
        yield made
        draw._free(made.pointer)


@given(
    key=st.integers(0, 0xFFFFFFFE),
    logits=st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=50),
    before=st.integers(0, 3),
)
def test_a_key_decides_the_draw(chain: Chain, key: int, logits: list[float], before: int) -> None:
    for _ in range(before):  # whatever was drawn before
        chain.drawn(logits)
    chain.draw.key(key)
    made = draw._new_dist(key)
    assert chain.drawn(logits) == drawn(made, logits)
    draw._free(made)


def test_keys_differ() -> None:
    chain = Chain()
    found = set()
    for key in range(200):
        chain.draw.key(key)
        found.add(chain.drawn([0.0] * 64))
    draw._free(chain.pointer)
    assert len(found) > 50
