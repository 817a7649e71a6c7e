"""One request answered twice: by the target its client got, and by another in the dark; compared, judged, kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from msgspec import Struct

from lumen.core.errors import RequestError
from lumen.gateway.attempt import Journey
from lumen.gateway.settled import Settled
from lumen.gateway.shadow import Dark, Heard, again
from lumen.gateway.table import candidate_of
from lumen.gateway.trial import Asked
from lumen.learning.answers import Answer, Compared, Read, facts
from lumen.learning.ceiling import Ceiling
from lumen.learning.judge import Found, Judge, conversation
from lumen.learning.kept import Kept
from lumen.ledger.labels import Label, Labels, LabelsError, PairRow
from lumen.routing.plan.facts import Facts
from lumen.routing.plan.view import lacking
from lumen.wire.requests import Plain

# Characters of a prompt and of an answer in a sample.
_SAMPLE = 8_000


@dataclass(frozen=True, slots=True)
class Ground:
    """What everything that is tried stands on. `now`: microseconds since 1970. `say`: tells the operator.

    `trusted`: whether labels of this judge on this route may be used.
    """

    dark: Dark
    labels: Labels
    kept: Kept
    now: Callable[[], int]
    say: Callable[[str], None]
    trusted: Callable[[str, str], bool]


class Pairing(Struct, frozen=True):
    """What is to be compared. `given`: what the client got; `other`: the target that is asked too.

    `candidate`: which of both is the candidate's: `given` or `other`. `texts`: the text of both may be kept.
    """

    asked: Asked
    given: Answer
    other: str
    candidate: str
    run: str
    kind: str
    propensity: float
    texts: bool


class Outcome(Struct, frozen=True):
    """`compared`: the pair, the incumbent's answer first; `None` where nothing came of it, and `why`."""

    compared: Compared | None
    why: str = ""
    found: Found | None = None


def answered(asked: Asked, settled: Settled, journey: Journey, whole: bytes) -> Answer:
    """What a client was answered."""
    last, trace = settled.attempts[-1], journey.trace
    read = Read()
    for data in [whole] if whole else trace.parts:
        read.add(data)
    target = next((one for one in asked.entry.targets if one.name == last.target), None)
    priced = target is not None and target.offer.price is not None
    usage = last.usage
    return Answer(
        last.target,
        settled.outcome,
        read.text if whole else trace.text,
        read.tools,
        read.finish,
        read.refusal,
        usage.completion_tokens if usage is not None else None,
        settled.cost if priced else None,
        settled.first_token if settled.stream else None,
        settled.seconds,
    )


def heard(one: Heard) -> Answer:
    """What was answered in the dark."""
    read = Read()
    for data in one.payloads:
        read.add(data)
    usage = one.usage
    return Answer(
        one.target, one.outcome, read.text, read.tools, read.finish, read.refusal,
        usage.completion_tokens if usage is not None else None, one.cost, one.ttft, one.seconds,
    )  # fmt: skip


def facts_of(asked: Asked) -> Facts:
    """The request as policies see it."""
    return Facts(asked.call, asked.size, asked.key.name if asked.key else "", asked.headers)


async def compare(ground: Ground, pairing: Pairing, judge: Judge, ceiling: Ceiling) -> Outcome:
    """Ask the other target, judge both answers, and keep what was found.

    What it may cost is held, durably, before it is asked, and before the judge is.
    """
    asked, entry = pairing.asked, pairing.asked.entry
    try:
        call, target = again(asked.call), ground.dark.target(entry, pairing.other)
    except RequestError as error:
        return Outcome(None, error.message)
    if call is None:
        return Outcome(None, "it cannot be compared")
    if (lacks := lacking(facts_of(asked), candidate_of(target))) is not None:
        return Outcome(None, f"{target.name} cannot be asked: {lacks}")
    most = ground.dark.most(target, call, asked.size)
    purse = Purse(ceiling, ground.kept)
    try:
        if (why := await purse.open(most)) is not None:
            return Outcome(None, why)
        other = await ground.dark.ask(entry, target, call, asked.size, pairing.kind, purse.pay)
    finally:
        purse.close()
    if other is None:
        return Outcome(None, "it could not be asked")
    second = heard(other)
    pair = (second, pairing.given) if pairing.candidate == "given" else (pairing.given, second)
    if other.passing:
        return await _keep(ground, pairing, pair, Found(None, "", "", f"{target.name} failed: {other.outcome}"))
    said = sum(len(answer.said.encode(errors="replace")) for answer in pair)
    purse = Purse(ceiling, ground.kept)
    try:
        if (why := await purse.open(judge.most(entry, asked.size + said))) is not None:
            found = Found(None, "", "", why)
        else:
            found = await judge.compare(entry, asked.call, *pair, nonce=asked.id, paid=purse.pay)
    finally:
        purse.close()
    return await _keep(ground, pairing, pair, found)


class Purse:
    """What one step may cost, held under a ceiling and settled when it is over."""

    def __init__(self, ceiling: Ceiling, kept: Kept) -> None:
        self._ceiling = ceiling
        self._kept = kept
        self._held: int | None = None
        self._spent = 0

    async def open(self, amount: int | None) -> str | None:
        """Hold so much and have that written down; why not, where that cannot be done."""
        if amount is None:
            return "its price is not known"
        if not self._ceiling.hold(amount):
            return "the budget is used up" if self._ceiling.exhausted else "what is left of the budget is spoken for"
        self._held = amount
        return None if not amount or await self._kept.now() else "what it costs cannot be written down"

    def pay(self, cost: int) -> None:
        """So much was spent."""
        self._spent += cost

    def close(self) -> None:
        """Let go of what was not spent."""
        if self._held is not None:
            self._ceiling.settle(self._held, self._spent)
            self._held = None
            self._kept.soon()


async def _keep(ground: Ground, pairing: Pairing, pair: tuple[Answer, Answer], found: Found) -> Outcome:
    asked, request = pairing.asked, pairing.asked.call.request
    assert not isinstance(request, Plain)
    aside = found.source == "judge" and not ground.trusted(asked.entry.account, found.versions)
    quality = None if aside else found.quality
    compared = Compared(facts(request, pair[0]), facts(request, pair[1]), quality, found.source, pairing.propensity)
    sample = _sample(asked, pair, found) if pairing.texts else None
    row = PairRow(asked.id, pairing.run, ground.now(), msgspec.json.encode(compared), sample)
    try:
        await asyncio.to_thread(ground.labels.pair, row)
        if quality is not None and pair[0].target != pair[1].target:
            await asyncio.to_thread(_label, ground, pairing, pair, quality, found)
    except LabelsError as error:
        ground.say(str(error))
    return Outcome(compared, found.why if quality is None else "", found)


def _label(
    ground: Ground, pairing: Pairing, pair: tuple[Answer, Answer], quality: tuple[float, float], found: Found
) -> None:
    """Blocks: the features are computed and written here."""
    # numpy is not imported before there is something to keep.
    from lumen.learning.asks import numbers_of, text_of

    asked, ask = pairing.asked, facts_of(pairing.asked).ask
    form, data = text_of(ask) if pairing.texts else numbers_of(ask)
    ground.labels.add(
        Label(
            request=asked.id,
            source=found.source,
            route=asked.entry.account,
            at=ground.now(),
            ok={answer.target: good for answer, good in zip(pair, quality, strict=True)},
            tokens={answer.target: float(answer.tokens) for answer in pair if answer.tokens is not None},
            key=asked.key.id if asked.key else "",
            propensity=pairing.propensity,
            form=form,
            ask=data,
            versions=found.versions,
        )
    )


def _sample(asked: Asked, pair: tuple[Answer, Answer], found: Found) -> bytes:
    told = {"prompt": conversation(asked.call), "incumbent": pair[0].said, "candidate": pair[1].said}
    cut = {name: text[:_SAMPLE] for name, text in told.items()}
    return msgspec.json.encode({**cut, "quality": found.quality})
