"""A route with `exact: true` asks local models for an exact answer from the first attempt on."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lumen.config.schema import Config, Route, Server, Target, Timeouts
from lumen.core.money import FREE
from lumen.gateway.pipeline import fill
from lumen.gateway.state import State
from lumen.gateway.tab import Offer
from lumen.gateway.table import Origin, Origins, Table
from lumen.gateway.upstream import Upstream
from lumen.providers.base import Capabilities, Dialect, Resume, module
from lumen.wire.call import chat_call
from lumen.wire.parse import parse_chat
from lumen.wire.requests import ChatRequest

NEAR = Capabilities(local=True, token_ids=True)
BODY = {"model": "r", "messages": [{"role": "user", "content": "hi"}], "stream": True}


def _origin(provider: str, can: Capabilities) -> Origin:
    def of(model: str) -> tuple[Dialect, Capabilities, Offer]:
        return module("openai").make(can), can, Offer(model, provider, model, FREE)

    return Origin(cast(Upstream, None), of)


def sent(exact: bool, resume: Resume | None = None, **more: Any) -> list[dict[str, Any]]:
    """What an attempt at a local and at a remote target of the route sends."""
    limits = Timeouts(connect=1, headers=1, first_token=1, gap=1, total=1)
    routes = {"r": Route((Target("near"), Target("far/m")), exact=exact)}
    origins = Origins({"near": _origin("local", NEAR)}, {"far": _origin("far", Capabilities())})
    entry = Table(Config(server=Server(), routes=routes, timeouts=limits), origins, 1).find("r")
    state = cast(State, SimpleNamespace(draw=random.Random(1)))
    request = fill(parse_chat(json.dumps({**BODY, **more}).encode()), entry, state)
    assert isinstance(request, ChatRequest)
    call = chat_call(request)
    return [json.loads(target.dialect.encode(call, target.model, resume).body) for target in entry.targets]


@pytest.mark.parametrize("exact", [True, False])
def test_only_local_models_are_told_and_only_by_an_exact_route(exact: bool) -> None:
    near, far = sent(exact)
    assert near.get("resume_exact", False) is exact
    assert near["return_token_ids"] is True and "seed" in near
    assert "resume_exact" not in far


@pytest.mark.parametrize("resume", [None, Resume([5, 6], None)])
def test_a_client_may_ask_for_it_itself(resume: Resume | None) -> None:
    near, far = sent(False, resume, resume_exact=True)
    assert near["resume_exact"] is True and "resume_exact" not in far
    assert near.get("resume_token_ids") == (resume and resume.token_ids)
