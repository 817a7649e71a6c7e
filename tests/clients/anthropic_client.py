"""Drives the Anthropic SDK against `/v1/messages`: run in the SDK's own environment, with the address and a key."""

from __future__ import annotations

import sys
from typing import Any

import anthropic  # type: ignore[import-not-found]  # lives in its own environment

ASK: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
TOOL = {"name": "record", "description": "Records words.", "input_schema": {"type": "object", "properties": {}}}
WORDS = {"words": ["word0", "word1", "word2"]}


def main(url: str, key: str) -> None:
    client = anthropic.Anthropic(base_url=url, api_key=key, max_retries=0)
    whole = client.messages.create(model="fake/words-3", max_tokens=50, messages=ASK)
    assert (whole.content[0].text, whole.stop_reason) == ("word0 word1 word2 ", "end_turn")
    assert whole.usage.output_tokens == 3

    with client.messages.stream(model="failover", max_tokens=50, messages=ASK) as stream:
        assert "".join(stream.text_stream) == "word0 word1 word2 "
        assert stream.get_final_message().usage.output_tokens == 3

    called = client.messages.create(model="fake/tool-words-3", max_tokens=50, messages=ASK, tools=[TOOL])
    assert (called.content[0].name, called.content[0].input, called.stop_reason) == ("record", WORDS, "tool_use")
    with client.messages.stream(model="fake/tool-words-3", max_tokens=50, messages=ASK, tools=[TOOL]) as stream:
        stream.until_done()
        assert stream.get_final_message().content[0].input == WORDS

    for model, error in (("nope", anthropic.NotFoundError), ("fake/status-503", anthropic.InternalServerError)):
        try:
            client.messages.create(model=model, max_tokens=5, messages=ASK)
        except error:
            continue
        raise AssertionError(f"{model} raised nothing")
    try:
        with client.messages.stream(model="fake/cut-2", max_tokens=50, messages=ASK) as stream:
            stream.until_done()
    except anthropic.APIStatusError:
        sys.stdout.write("ok\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
