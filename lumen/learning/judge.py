"""Has answers judged: by another target, in both orders, or by the operator's checker. Trust in a judge is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b

from msgspec import Struct

from lumen.core.errors import RequestError
from lumen.gateway.shadow import Dark, chat
from lumen.gateway.table import Entry
from lumen.learning import judging
from lumen.learning.answers import Answer, Read
from lumen.learning.checking import Checking
from lumen.learning.checks import CheckerError
from lumen.learning.judging import Agreement, Verdict
from lumen.ledger.labels import Anchor
from lumen.wire.call import Call
from lumen.wire.prompt import parts

# A judge may think before it says one word.
MOST_SAID = 2048
# Bytes of a question to a judge besides what it is about.
_AROUND = 4_000
# Anchors that a judge is asked about in one look.
ANCHORS_AT_ONCE = 50


class Found(Struct, frozen=True):
    """What became of judging a pair. `quality`: of the first and of the second answer; `None`: it could not be told.

    `why`: what was wrong where there is no quality.
    """

    quality: tuple[float, float] | None
    source: str
    versions: str
    why: str = ""


Paid = Callable[[int], None]


class Judge:
    """How the answers of one route are judged: by the target `judge`, or by a checker; with neither, not at all."""

    def __init__(self, dark: Dark, judge: str | None, checker: Checking | None) -> None:
        self._dark = dark
        self.judge = judge
        self.checker = checker

    @property
    def source(self) -> str:
        """Of its labels."""
        return "checker" if self.checker is not None else "judge" if self.judge is not None else ""

    def most(self, entry: Entry, size: int) -> int | None:
        """The most that judging a pair can cost, in pico-dollars; `None` where the judge has no price.

        Args:
            size: bytes of the request and of both answers.
        """
        if self.judge is None or self.checker is not None:
            return 0
        question = chat(self.judge, [("user", "")], MOST_SAID)
        try:
            target = self._dark.target(entry, self.judge)
        except RequestError:
            # It is gone from the configuration: it will not be asked.
            return 0
        once = self._dark.most(target, question, size + _AROUND)
        return None if once is None else 2 * once

    async def compare(self, entry: Entry, call: Call, first: Answer, second: Answer, nonce: str, paid: Paid) -> Found:
        """Judge two answers to one request, the incumbent's first. `nonce`: what no answer can have known. `paid`: told
        of every cost."""
        prompt = conversation(call)
        if self.checker is not None:
            return await self._check(prompt, first, second)
        if self.judge is None:
            return Found(None, "", "")
        if not (first.ok and second.ok):
            # An answer that is there is better than none; a judge has nothing to read.
            return Found((float(first.ok), float(second.ok)), "judge", judging.VERSION)
        verdict, why = await self._ask_twice(entry, prompt, first.said, second.said, nonce, paid)
        versions = f"{self.judge} {judging.VERSION}"
        return Found(None if verdict is None else judging.worth(verdict), "judge", versions, why)

    async def agreement(self, entry: Entry, anchors: Sequence[Anchor], paid: Paid) -> Agreement:
        """How often the judge says what a person has said. Anchors it cannot be asked about now are left out."""
        asked = agreed = 0
        for anchor in anchors[:ANCHORS_AT_ONCE]:
            shown = (anchor.prompt, anchor.first, anchor.second)
            verdict, why = await self._ask_twice(entry, *shown, "anchor", paid)
            if why != _AWAY:
                asked += 1
                agreed += verdict == anchor.verdict
        return judging.agreement(agreed, asked)

    async def close(self) -> None:
        """End the checker's process."""
        if self.checker is not None:
            await self.checker.close()

    # -- inside ----------------------------------------------------------------------------------------------

    async def _check(self, prompt: str, first: Answer, second: Answer) -> Found:
        assert self.checker is not None
        versions = self.checker.written
        try:
            rated = []
            for answer in (first, second):
                # What an answer may be held against is the incumbent's: where both differ, both would else be wrong.
                rated.append(await self.checker.rate(prompt, answer.said, first.said) if answer.ok else 0.0)
        except CheckerError as error:
            return Found(None, "checker", versions, why=str(error))
        return Found((rated[0], rated[1]), "checker", versions)

    async def _ask_twice(
        self, entry: Entry, prompt: str, first: str, second: str, nonce: str, paid: Paid
    ) -> tuple[Verdict | None, str]:
        """The verdict of both orders, and why there is none."""
        one, why = await self._ask(entry, judging.question(prompt, first, second, _mark(nonce, "1")), paid)
        if one is None:
            return None, why
        other, why = await self._ask(entry, judging.question(prompt, second, first, _mark(nonce, "2")), paid)
        return judging.both(one, judging.turned(other) if other is not None else None), why

    async def _ask(self, entry: Entry, messages: list[tuple[str, str]], paid: Paid) -> tuple[Verdict | None, str]:
        assert self.judge is not None
        try:
            target = self._dark.target(entry, self.judge)
        except RequestError:
            return None, _AWAY
        call = chat(target.model, messages, MOST_SAID)
        size = sum(len(text.encode(errors="replace")) for _, text in messages) + 200
        heard = await self._dark.ask(entry, target, call, size, "judge", paid)
        if heard is None or heard.outcome != "ok":
            return None, _AWAY
        read = Read()
        for data in heard.payloads:
            read.add(data)
        verdict = judging.parse(read.text)
        return verdict, "" if verdict is not None else "the judge's words could not be read"


_AWAY = "the judge could not be asked"


def conversation(call: Call) -> str:
    """A request as a judge reads it: its text alone where that is all there is."""
    told = list(parts(call.request))
    if len(told) == 1:
        return told[0][1]
    return "\n\n".join(f"{role}: {text}" for role, text in told)


def _mark(nonce: str, order: str) -> str:
    return "#" + blake2b(nonce.encode(), key=order.encode(), digest_size=6).hexdigest()
