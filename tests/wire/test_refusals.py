"""What targets of the OpenAI dialect mean by what they refuse, in the words of those that name no code."""

from __future__ import annotations

import json

import pytest

from lumen.core.errors import Retry
from lumen.core.retry import CONTEXT_CODES, Next, after
from lumen.providers.base import Capabilities, module
from lumen.wire.refusals import wait

OPENAI = module("openai").make(Capabilities())

# Server or vendor, status, body: as their documentation or source has it.
TOO_LONG = [
    ("openai", 400, {"error": {"message": "This model's maximum context length is 8192 tokens. However, …",
                               "type": "invalid_request_error", "code": "context_length_exceeded"}}),
    ("vllm", 400, {"object": "error", "message": "This model's maximum context length is 4096 tokens. However, you …",
                   "type": "BadRequestError", "param": None, "code": 400}),
    ("vllm, newer", 400, {"error": {"message": "'max_tokens' is too large: 9000. This model's maximum context length "
                                    "is 8192 tokens and your request has 20 input tokens", "code": 400}}),
    ("sglang", 400, {"message": "The input (5000 tokens) is longer than the model's context length (4096 tokens)."}),
    ("llama-server", 400, {"error": {"code": 400, "message": "the request exceeds the available context size, try "
                                     "increasing it", "type": "exceed_context_size_error"}}),
    ("tgi", 422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 "
                  "`inputs` tokens and 20 `max_new_tokens`", "error_type": "validation"}),
    ("groq", 400, {"error": {"message": "Please reduce the length of the messages or completion."}}),
    ("mistral", 400, {"message": "Prompt contains 40000 tokens, too large for model with 32768 maximum context "
                      "length", "type": "invalid_request_prompt", "code": "3051"}),
    ("xai", 400, {"error": "This model's maximum prompt length is 131072 but the request contains 200000 tokens."}),
    ("fireworks", 400, {"error": {"message": "The prompt is too long: 10000, model maximum context length: 8192"}}),
    ("openrouter", 400, {"error": {"message": "This endpoint's maximum context length is 8192 tokens.", "code": 400}}),
    ("moonshot", 400, {"error": {"message": "Invalid request: Your request exceeded model token limit: 8192"}}),
    ("cohere", 400, {"message": "too many tokens: total number of tokens in the prompt exceeds limit of 4081"}),
    ("alibaba", 400, {"error": {"message": "Range of input length should be [1, 30720]"}}),
]  # fmt: skip
NOT_TOO_LONG = [
    "Invalid value for 'max_tokens': integer below minimum value.",
    "max_tokens is too large: 5000. This model supports at most 4096 completion tokens.",
    "Invalid 'stop': array too long. Expected an array with maximum length 4, but got an array with length 5 instead.",
    "Rate limit reached: too many requests.",
]
FILTERED = [
    ("azure", 400, {"error": {"message": "The response was filtered due to the prompt triggering Azure OpenAI's "
                              "content management policy.", "code": "content_filter", "status": 400}}),
    ("alibaba", 400, {"error": {"message": "Input data may contain inappropriate content.",
                                "code": "data_inspection_failed"}}),
    ("openrouter", 403, {"error": {"message": "The chosen model requires moderation and your input was flagged",
                                   "code": 403}}),
    ("xai", 403, {"error": "Content violates usage guidelines."}),
]  # fmt: skip


@pytest.mark.parametrize(("who", "status", "body"), TOO_LONG, ids=[one[0] for one in TOO_LONG])
def test_a_prompt_too_long_goes_to_a_larger_window(who: str, status: int, body: object) -> None:
    error = OPENAI.refusal(status, {}, json.dumps(body).encode())
    assert error.code in CONTEXT_CODES and error.status == 400
    assert after(error, tries=1, draw=0.5).next is Next.LARGER


@pytest.mark.parametrize("message", NOT_TOO_LONG)
def test_other_mistakes_of_a_client_are_its_own(message: str) -> None:
    error = OPENAI.refusal(400, {}, json.dumps({"error": {"message": message, "code": "odd"}}).encode())
    assert (error.code, error.message, error.retry) == ("odd", message, Retry.NEVER)


@pytest.mark.parametrize(("who", "status", "body"), FILTERED, ids=[one[0] for one in FILTERED])
def test_a_content_filter_stops_unless_the_route_goes_around_it(who: str, status: int, body: object) -> None:
    error = OPENAI.refusal(status, {}, json.dumps(body).encode())
    assert error.status == 400
    assert after(error, tries=1, draw=0.5).next is Next.GIVE_UP
    assert after(error, tries=1, draw=0.5, around_filter=True).next is Next.OTHER


DATE = "Mon, 23 Nov 2026 03:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e300"}, 86_400.0),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "x", "retry-after": "2"}, 2.0),
        ({"retry-after": "Mon, 23 Nov 2026 03:00:30 GMT", "date": DATE}, 30.0),
        ({"retry-after": "Mon, 23 Nov 2026 02:00:00 GMT", "date": DATE}, 0.0),
        ({"retry-after": "Mon, 23 Nov 2026 03:00:30 GMT"}, None),
        ({"retry-after": "Mon, 23 Nov 2026 03:00:30 GMT", "date": "today"}, None),
        ({"retry-after": "Mon, 23 Nov 2026 03:00:30 GMT", "date": "Mon, 23 Nov 2026 03:00:00"}, 30.0),
        ({"retry-after": "Mon, 99 Nov 2026 03:00:30 GMT", "date": DATE}, None),
    ],
)
def test_how_long_a_target_asks_to_be_left_alone(headers: dict[str, str], seconds: float | None) -> None:
    assert wait(headers) == seconds
    assert OPENAI.refusal(429, headers, b"{}").retry_after == seconds
