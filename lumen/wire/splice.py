"""The seam of a stream: events of the target that goes on become the rest of the answer the client has. Pure.

The client sees one id, one role, text that only grows, one finish reason per choice, and the usage of the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from lumen.core.resume import Rung
from lumen.core.trace import Trace
from lumen.wire.anchored import Anchored
from lumen.wire.call import Event
from lumen.wire.delivered import ALIASES, CONTENT, REASONING, Channel, calls, channels, tool_channels
from lumen.wire.matching import Diverged, Fresh, Matcher, Prefill, Replay

_encode = msgspec.json.Encoder().encode
_any = msgspec.json.Decoder().decode
# Between the reasoning of an attempt that broke off and that of the one that answers.
_BREAK = "\n\n"


def splice_comment(*, origin: str, target: str, rung: Rung, at: int, seam_ms: float) -> bytes:
    """The SSE comment that marks a seam: names of targets, the rung, characters before it, and what it took."""
    told = {"from": origin, "to": target, "rung": rung.value, "at": at, "seam_ms": round(seam_ms)}
    return b": lumen-splice " + _encode(told) + b"\n\n"


class Seam:
    """Takes the events of the new target, gives those for the client.

    Text that cannot be judged yet is held, so an event may give nothing, or more than itself. The events given
    carry no token ids: what the new target counts is not what the client has.

    Args:
        rung: any but token-exact, which has no seam in the text.
        trace: what the client has; read here and now.
        echoes: at `Rung.PREFILL`, the target is known to repeat the partial message.
    """

    def __init__(self, rung: Rung, trace: Trace, *, echoes: bool = False) -> None:
        self.rung = rung
        self._finished = set(trace.finished)
        made = _matchers(rung, trace, echoes=echoes)
        self._matchers = {channel: matcher for channel, matcher in made.items() if channel[0] not in self._finished}
        self._identity = trace.identity
        self._tokens = trace.tokens
        self._prompt_tokens = trace.prompt_tokens
        self._begun = trace.delivered
        self._tools = {(index, channel) for index, channel in self._matchers if channel.startswith("name ")}
        # A text seam follows plain content: what the new target thinks before going on is not part of the answer.
        self._thoughts = rung not in (Rung.PREFILL, Rung.ANCHORED)
        self._break = {0} if rung is Rung.RESTART and trace.reasoning else set()

    @property
    def settled(self) -> bool:
        """The answer is found again: everything from here on is new, and the splice is one."""
        return all(matcher.settled for matcher in self._matchers.values())

    def feed(self, events: Sequence[Event]) -> list[Event]:
        """The client's events for these.

        Raises:
            Diverged: the target gave another answer. Nothing of it was handed on.
        """
        return [self._take(event) for event in events]

    def _take(self, event: Event) -> Event:
        if not event.data:
            return Event(b"", usage=event.usage)
        whole: dict[str, Any] = _any(event.data)
        if self._identity is not None:
            whole["id"], whole["created"] = self._identity
        given = Event(b"", usage=event.usage, identity=self._identity or event.identity)
        choices = whole.get("choices") or []
        whole["choices"] = [choice for choice in choices if self._choice(choice, given)]
        if choices and not whole["choices"]:
            return given
        if isinstance(whole.get("usage"), dict):
            self._count(whole["usage"])
        given.data = _encode(whole)
        return given

    def _choice(self, choice: dict[str, Any], given: Event) -> bool:
        """Cut one choice of a chunk down to what is new; whether anything is left of it."""
        index = choice.get("index") or 0
        if index in self._finished:
            return False
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            delta = choice if "text" in choice else {}
            if delta is not choice:
                choice["delta"] = delta
        if self._begun:
            delta.pop("role", None)
        changed = self._texts(index, delta)
        changed |= self._calls(index, delta)
        finish = choice.get("finish_reason")
        if finish or delta.get("tool_calls"):
            changed |= self._flush(index, delta, final=bool(finish))
        self._in_order(index, delta)
        if changed:
            # Counted for the text as it was.
            choice.pop("logprobs", None)
            choice.pop("token_ids", None)
        self._note(index, delta, given)
        if finish:
            self._finished.add(index)
            given.finished += (index,)
        return bool(finish) or any(delta.values() if delta is not choice else (choice.get("text"),))

    def _texts(self, index: int, delta: dict[str, Any]) -> bool:
        """Pass every text of a delta through its matcher; whether that changed one."""
        changed = False
        new: dict[str, str] = {}
        for field, channel in ALIASES.items():
            text = delta.get(field)
            if not isinstance(text, str) or not text:
                continue
            if channel not in new:
                new[channel] = self._passed(index, channel, text)
            # A vendor may send one text under two names.
            if new[channel] != text:
                changed, delta[field] = True, new[channel]
                if channel == REASONING:
                    # The same once more, in a vendor's own form.
                    delta.pop("reasoning_details", None)
        return changed

    def _passed(self, index: int, channel: str, text: str) -> str:
        if channel == REASONING:
            if not self._thoughts:
                return ""
            if index in self._break:
                self._break.discard(index)
                return _BREAK + text
        matcher = self._matchers.get((index, channel))
        return text if matcher is None else matcher.push(text)

    def _calls(self, index: int, delta: dict[str, Any]) -> bool:
        """The same for fragments of tool calls; those the client has begun keep their id and are not named again."""
        changed = False
        kept = []
        for number, call, function in calls(delta):
            named, argued = tool_channels(number)
            if (index, named) in self._tools:
                changed = True
                self._matchers[index, named].push(function.get("name") or "")
                rest = self._matchers[index, argued].push(function.get("arguments") or "")
                if not rest:
                    continue
                call = {"index": number, "function": {"arguments": rest}}
            kept.append(call)
        if changed:
            delta["tool_calls"] = kept
        return changed

    def _flush(self, index: int, delta: dict[str, Any], *, final: bool) -> bool:
        """The content is complete: nothing more is held of it."""
        if self.rung is Rung.REPLAY_EXACT:
            if final:
                for (choice, _), replay in self._matchers.items():
                    if choice == index:
                        replay.end()
            return False
        matcher = self._matchers.get((index, CONTENT))
        rest = "" if matcher is None or (matcher.settled and not final) else matcher.end()
        if not rest:
            return False
        field = "text" if "text" in delta else "content"
        delta[field] = (delta.get(field) or "") + rest
        return True

    def _in_order(self, index: int, delta: Mapping[str, Any]) -> None:
        """A repetition gives nothing new before it has given all that is old.

        Raises:
            Diverged: it did.
        """
        if self.rung is not Rung.REPLAY_EXACT or self.settled:
            return
        old = any(not m.settled for (choice, _), m in self._matchers.items() if choice == index)
        if old and (delta.get("tool_calls") or any(delta.get(field) for field in ALIASES)):
            raise Diverged("its repetition differs")

    def _note(self, index: int, delta: Mapping[str, Any], given: Event) -> None:
        """What the client gets, in the terms of the trace."""
        text = delta.get("content") or delta.get("text")
        if delta.get("tool_calls") or delta.get("refusal"):
            given.content = given.actionable = True
        if delta.get("reasoning_content") or delta.get("reasoning"):
            given.content = given.reasoning = True
        if isinstance(text, str) and text:
            given.content = True
            if index == 0:
                given.text = text

    def _count(self, usage: dict[str, Any]) -> None:
        """Make the new target's counts those of the whole answer."""
        prompt, completion = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
        if self.rung is not Rung.REPLAY_EXACT:
            completion += self._tokens
        if self._prompt_tokens is not None:
            prompt = self._prompt_tokens
        elif not self._thoughts:
            # Its prompt held the answer so far.
            prompt = max(1, prompt - self._tokens)
        usage["prompt_tokens"], usage["completion_tokens"] = prompt, completion
        usage["total_tokens"] = prompt + completion
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict) and isinstance(cached := details.get("cached_tokens"), int):
            details["cached_tokens"] = min(cached, prompt)


def _matchers(rung: Rung, trace: Trace, *, echoes: bool) -> dict[Channel, Matcher]:
    match rung:
        case Rung.REPLAY_EXACT:
            return {channel: Replay(text) for channel, text in channels(trace).items()}
        case Rung.PREFILL:
            return {(0, CONTENT): Prefill(trace.text, echoes=echoes)}
        case Rung.ANCHORED:
            return {(0, CONTENT): Anchored(trace.text)}
        case Rung.RESTART:
            return {(0, CONTENT): Fresh(trace.text)}
        case _:
            raise ValueError(f"the rung {rung.value} has no seam")
