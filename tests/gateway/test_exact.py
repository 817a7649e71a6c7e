"""A route with `exact: true` asks local models for an exact answer from the first attempt on."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec import structs

from lumen.config.schema import Config, Route, Server, Target, Timeouts
from lumen.core.errors import RefusedError
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


def _origin(provider: str, can: Capabilities, dialect: str = "openai") -> Origin:
    def of(model: str) -> tuple[Dialect, Capabilities, Offer]:
        return module(dialect).make(can), can, Offer(model, provider, model, FREE)

    return Origin(cast(Upstream, None), of)


def sent(
    exact: bool, resume: Resume | None = None, far: str = "openai", defaults: dict[str, Any] | None = None, **more: Any
) -> list[dict[str, Any]]:
    """What an attempt at a local and at a remote target of the route sends; `far`: the latter's dialect."""
    limits = Timeouts(connect=1, headers=1, first_token=1, gap=1, total=1)
    routes = {"r": Route((Target("near"), Target("far/m")), exact=exact, defaults=defaults or {})}
    remote = _origin("far", Capabilities(seed=far != "anthropic"), far)
    origins = Origins({"near": _origin("local", NEAR)}, {"far": remote})
    entry = Table(Config(server=Server(), routes=routes, timeouts=limits), origins, 1).find("r")
    state = cast(State, SimpleNamespace(draw=random.Random(1)))
    request = parse_chat(json.dumps({**BODY, **more}).encode())
    assert isinstance(request, ChatRequest)
    call = structs.replace(chat_call(request), lent=fill(request, entry, state))
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


@pytest.mark.parametrize("far", ["openai", "anthropic", "gemini"])
def test_what_the_gateway_lends_keeps_no_target_of_another_kind_from_answering(far: str) -> None:
    """The seed that makes a local answer resumable, and a route's defaults that only engines know."""
    near, remote = sent(False, far=far, defaults={"min_p": 0.1, "temperature": 0.5})
    assert near["seed"] is not None and near["min_p"] == 0.1
    config = remote.get("generationConfig", remote)
    assert config["temperature"] == 0.5
    assert not {"seed", "min_p"} & {*remote, *config}


@pytest.mark.parametrize("far", ["openai", "anthropic", "gemini"])
@pytest.mark.parametrize(("field", "value"), [("min_p", 0.1), ("typical_p", 0.5), ("repetition_penalty", 1.2)])
def test_what_the_client_itself_asks_for_is_refused_where_it_would_be_lost(far: str, field: str, value: float) -> None:
    with pytest.raises(RefusedError) as caught:
        asked: dict[str, Any] = {field: value}
        sent(False, far=far, **asked)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "unsupported_by_target", field)


def test_a_clients_own_seed_goes_to_whoever_takes_one() -> None:
    assert [body["seed"] for body in sent(False, seed=7)] == [7, 7]
    with pytest.raises(RefusedError, match="seed"):
        sent(False, far="anthropic", seed=7)
