"""The request for the target that goes on with an answer. Pure."""

from __future__ import annotations

from typing import Literal

from msgspec import structs
from msgspec.structs import asdict

from lumen.core.resume import Asked, Rung
from lumen.wire.anchor import anchor, split
from lumen.wire.call import SEED, Call, Operation
from lumen.wire.requests import (
    ChatRequest,
    CompletionRequest,
    ContinuedChat,
    Message,
    Plain,
    PrefixMessage,
    TextFormat,
    TextPart,
)

# Tokens allowed for repeating the anchor, on top of what is left of the request's own limit.
ANCHOR_TOKENS = 64
Prefill = Literal["none", "prefix", "continue", "native"]

_GO_ON = (
    "Your answer above was cut off in the middle. Continue it from exactly where it stops. To show where that is, "
    "begin by repeating its last characters verbatim, which are the following line or lines, and then go on at once, "
    "in the middle of a word if it stops there. No introduction, no comment, no quotation marks, and do not start "
    "over.\n\n"
)


def asked(call: Call) -> Asked:
    """The facts of a call that decide how its answer may be continued."""
    request = call.request
    if isinstance(request, Plain):
        return Asked(chat=False, stream=False, answers=0, json=False, temperature=None, seed=None)
    form = request.response_format if isinstance(request, ChatRequest) else None
    return Asked(
        chat=call.operation is Operation.CHAT,
        stream=call.stream,
        answers=call.answers,
        json=form is not None and not isinstance(form, TextFormat),
        temperature=request.temperature,
        seed=request.seed,
        state=_has_state(request),
        lent=SEED in call.lent,
        appends=isinstance(request, CompletionRequest) and _appends(request),
    )


def _has_state(request: ChatRequest | CompletionRequest) -> bool:
    """Whether what may come next hangs on more than the tokens so far."""
    penalties = request.presence_penalty or request.frequency_penalty
    repeated = (request.repeat_penalty or 1) != 1 or (request.repetition_penalty or 1) != 1
    if penalties or repeated or request.stop or request.logprobs:
        return True
    if isinstance(request, ChatRequest):
        form = request.response_format
        tools = bool(request.tools) and request.tool_choice != "none"
        return tools or (form is not None and not isinstance(form, TextFormat))
    return bool(request.echo or request.suffix or request.best_of)


def _appends(request: CompletionRequest) -> bool:
    """Whether an answer goes on behind its prompt as it would have without a break."""
    return isinstance(request.prompt, str) and not request.logprobs and (request.best_of or 1) == 1


def _appended(request: CompletionRequest, delivered: str, tokens: int) -> CompletionRequest:
    """The request with the answer so far behind its prompt."""
    sent, _ = split(delivered)
    left = None if request.max_tokens is None else max(1, request.max_tokens - tokens)
    return structs.replace(request, prompt=f"{request.prompt}{sent}", max_tokens=left)


def taken_off(rung: Rung, tokens: int) -> tuple[int, int]:
    """What an answer of `tokens` so far takes off the limit of the rest on this rung, and what is put on top of it."""
    if rung not in (Rung.TOKEN_EXACT, Rung.PREFILL, Rung.ANCHORED):
        return 0, 0
    return tokens, ANCHOR_TOKENS if rung is Rung.ANCHORED else 0


def continued(
    request: ChatRequest | CompletionRequest, rung: Rung, delivered: str, tokens: int, prefill: Prefill
) -> ChatRequest | CompletionRequest:
    """The request that makes a target go on on this rung; `request` itself where the rung needs no other.

    Args:
        delivered: the content the client has; more than whitespace for the rungs that send it.
        tokens: how many tokens that was; taken off the request's limit, of which one at least remains.
        prefill: how the target continues a partial assistant message.
    """
    if rung not in (Rung.PREFILL, Rung.ANCHORED):
        return request
    if isinstance(request, CompletionRequest):
        return _appended(request, delivered, tokens)
    made = ContinuedChat(**asdict(request))
    sent, _ = split(delivered)
    less, more = taken_off(rung, tokens)
    if made.max_tokens is not None:
        made.max_tokens = max(1, made.max_tokens - less) + more
    if made.max_completion_tokens is not None:
        made.max_completion_tokens = max(1, made.max_completion_tokens - less) + more
    begun = bool(request.continue_final_message) or (rung is Rung.PREFILL and prefill == "native")
    made.messages = _with_answer(request.messages, sent, begun=begun)
    made.continue_final_message = None
    if rung is Rung.ANCHORED:
        made.messages.append(Message("user", _GO_ON + anchor(sent)))
    elif prefill == "prefix":
        last = made.messages[-1]
        made.messages[-1] = PrefixMessage(last.role, last.content, prefix=True)
    elif prefill == "continue":
        made.continue_final_message = True
        made.add_generation_prompt = False
    return made


def _with_answer(messages: list[Message], sent: str, *, begun: bool) -> list[Message]:
    """The conversation with the answer so far behind it.

    `begun`: an assistant message at its end is the beginning of that answer, which the client had written itself.
    """
    last = messages[-1]
    if not begun or last.role != "assistant" or last.tool_calls:
        return [*messages, Message("assistant", sent)]
    if isinstance(last.content, list):
        return [*messages[:-1], Message("assistant", [*last.content, TextPart(sent)])]
    return [*messages[:-1], Message("assistant", (last.content or "") + sent)]
