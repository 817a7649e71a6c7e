"""The memory of this machine as the pool sees it: estimates, the byte ledger, and what is learned by measuring.

    estimate → reserve → load → measure → correct → remember

Owned by the event loop; looks at files, devices and processes in threads.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lumen.config.schema import Model
from lumen.engines.base import ModelFiles
from lumen.hardware import corrections
from lumen.hardware.corrections import Corrections
from lumen.hardware.devices import RAM
from lumen.hardware.readings import Monitor
from lumen.hub import needs
from lumen.hub.estimate_hf import Weights
from lumen.hub.needs import Body
from lumen.workers.glance import Glance
from lumen.workers.measure import Life, Survey, charge, enter, survey
from lumen.workers.memory import Ledger
from lumen.workers.placing import groups, ordered
from lumen.workers.seats import Seat
from lumen.workers.spec import Spec

_logger = logging.getLogger(__name__)

# Of each card, for an engine that nothing is known of: enough to take its turn there, and to be measured.
_TOKEN = 1024 * 1024
_SHOWN = ("margin", "foreign", "charged", "returning", "set_aside", "free")


_Paths = tuple[Path, Path | None]
"""Of a model's files, and of its draft model's."""


@dataclass(slots=True)
class _Known:
    """A model's files, looked at. `digest`: `None` where they cannot be read. `draft`: of its draft model's."""

    body: Body | None
    digest: str | None
    draft: Body | None = None
    adapters: int = 0  # bytes


@dataclass(slots=True)
class _Peak:
    """The most of the machine's memory that one life of a replica took."""

    spec: Spec
    cards: tuple[str, ...]
    size: int = 0


@dataclass(slots=True)
class Machine:
    """`seats.Memory` over real devices. `kept`: the file of what was learned; `None` learns for this process only.
    `offloads`: whether the llama.cpp that is installed can use cards."""

    monitor: Monitor
    kept: Path | None = None
    offloads: bool = field(default_factory=needs.offloads)
    ledger: Ledger = field(init=False)
    _glance: Glance = field(init=False)
    _corrections: Corrections = field(init=False)
    _files: dict[_Paths, _Known] = field(default_factory=dict)
    _peaks: dict[str, _Peak] = field(default_factory=dict)
    _news: bool = False  # something was learned that is not kept yet

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.monitor.devices)
        self._glance = Glance(self.monitor)
        self._corrections = corrections.read(self.kept) if self.kept is not None else Corrections()

    async def adopt(self, models: Mapping[str, tuple[Model, ModelFiles]], claims: Iterable[str] = ()) -> None:
        """Look at the files of these models, and set capacity aside for those with `reserve` or named in `claims` (the
        local models of reserved routes). Call it before the supervisor's `apply`."""
        paths = {(files.path, files.draft) for _, files in models.values()}
        for both in paths - self._files.keys():
            self._files[both] = await asyncio.to_thread(_look, *both)
        for both in self._files.keys() - paths:
            del self._files[both]
        for name, (model, _) in models.items():
            self._look_for_cards(name, model)
        reserved = {name for name, (model, _) in models.items() if model.reserve} | set(claims) & models.keys()
        self.ledger.earmark(self._claims({name: models[name] for name in sorted(reserved)}))

    def seats(self, spec: Spec, most: int) -> tuple[Seat, ...]:
        """See `seats.Memory`."""
        ledger, draws = self.ledger, (f"model:{spec.name}",)

        def free(card: str) -> int:
            could = ledger.free(card, draws=draws)
            # Where capacity is set aside for it, before all others.
            return could + (ledger.devices[card].total if could > ledger.free(card) else 0)

        return self._seats(spec.model, spec.files, most, free)

    async def held(self, spec: Spec, owner: str, pid: int, *, asleep: bool) -> Mapping[str, int]:
        """See `seats.Memory`."""
        holding = self.ledger.holding(owner)
        if holding is None:
            return {}
        cards = tuple(device for device in holding.charged if device != RAM)
        found = await self._survey({owner: Life(pid, cards)})
        if not found.held.get(owner, {}).get(RAM):
            # Gone meanwhile: what it holds now says nothing of what it takes.
            return {}
        known = self._known(spec.files)
        reserved = {RAM: 0} | dict(holding.charged)
        grown = {card: self._own_use(owner, found, card) for card in cards}
        sizes = dict(found.held.get(owner, {})) if asleep else charge(reserved, found.held.get(owner, {}), grown)
        if known.digest is not None:
            self._learn(known.digest, spec.model, cards, sizes, asleep=asleep)
        if not asleep:
            before = self._peaks.get(owner)
            self._peaks[owner] = _Peak(spec, cards, before.size if before is not None and before.cards == cards else 0)
        await self._keep()
        return sizes

    async def read(self, pids: Mapping[str, int]) -> None:
        """See `seats.Memory`."""
        epoch = self.ledger.epoch
        devices = {one.owner: {*one.charged, *one.returning} for one in self.ledger.holdings()}
        found = await self._survey({owner: Life(pid, devices.get(owner, ())) for owner, pid in pids.items()})
        enter(self.ledger, found, epoch)
        for owner, sizes in found.held.items():
            if owner in self._peaks:
                self._peaks[owner].size = max(self._peaks[owner].size, sizes.get(RAM, 0))
        for owner in self._peaks.keys() - pids.keys():
            self._end(self._peaks.pop(owner))
        await self._keep()

    def describe(self) -> dict[str, Any]:
        """What was given to whom, for operators; bytes."""
        return {
            "devices": [
                {
                    "id": one.device.id,
                    "total": one.device.total,
                    **{name: getattr(one, name) for name in _SHOWN},
                    "pressure": one.pressure,
                }
                for one in self.ledger.standing()
            ],
            "holdings": [
                {
                    "owner": one.owner,
                    "stage": one.stage.value,
                    "pinned": one.pinned,
                    "charged": dict(one.charged),
                    "returning": dict(one.returning),
                }
                for one in self.ledger.holdings()
            ],
        }

    def watched(self) -> list[dict[str, Any]]:
        """Every device for whoever watches: bytes, `busy` in per cent, at most some seconds old. Waits for nothing."""
        charged = {one.device.id: one.charged for one in self.ledger.standing()}
        return [
            {
                "id": one.device.id,
                "kind": one.device.kind,
                "name": one.device.name,
                "total": one.device.total,
                "used": one.used,
                "charged": charged.get(one.device.id, 0),
                "busy": one.busy,
                "celsius": one.celsius,
            }
            for one in self._glance.readings()
        ]

    async def close(self) -> None:
        """Write what was learned and let go of the driver."""
        await self._glance.close()
        for peak in self._peaks.values():
            self._end(peak)
        self._peaks.clear()
        self._news = True
        await self._keep()
        await asyncio.to_thread(self.monitor.close)

    # -- inside ------------------------------------------------------------------------------------------

    def _seats(self, model: Model, files: ModelFiles, most: int, free: Callable[[str], int]) -> tuple[Seat, ...]:
        known, devices = self._known(files), self.ledger.devices
        cards = [one.id for one in devices.values() if one.kind in ("cuda", "rocm")]
        if not cards or not self._wants_cards(model):
            return (Seat((), self._expected(known, model, ()), self._expected(known, model, (), asleep=True)),)
        assigned = [
            one.id for number in model.gpus for one in devices.values() if one.id in cards and one.index == number
        ]
        room = {one.id: one.total - one.margin for one in devices.values()}
        places = ordered(
            groups(cards, assigned, most, lambda count: _spreads(known.body, model, count)) or [tuple(cards)],
            lambda here: self._expected(known, model, here),
            room,
            free,
            assigned=bool(assigned),
        )
        return tuple(
            Seat(tuple(devices[card].index for card in here), holds, self._expected(known, model, here, asleep=True))
            for here, holds in places
        )

    def _claims(self, models: Mapping[str, tuple[Model, ModelFiles]]) -> dict[str, dict[str, int]]:
        """What the replicas of each of these models take: where they are already, else where most is left of an empty
        machine by the others."""
        devices, taken = self.ledger.devices, dict.fromkeys(self.ledger.devices, 0)
        at_home: dict[str, set[str]] = {name: set() for name in models}
        for peak in self._peaks.values():
            at_home.get(peak.spec.name, set()).update(peak.cards)
        claims: dict[str, dict[str, int]] = {}
        for name in sorted(models, key=lambda name: not at_home[name]):
            home = at_home[name]
            left = {id_: one.total * (2 if id_ in home else 1) - taken[id_] for id_, one in devices.items()}
            claims[f"model:{name}"] = claim = self._claim(*models[name], left)
            for device, size in claim.items():
                taken[device] += size
        return claims

    def _claim(self, model: Model, files: ModelFiles, left: Mapping[str, int]) -> dict[str, int]:
        """What all replicas of a model take, where most is `left`."""
        count = max(1, model.replicas)
        seats = self._seats(model, files, count, left.__getitem__)
        total: dict[str, int] = {}
        for place in range(count):
            for device, size in seats[place % len(seats)].holds.items():
                total[device] = total.get(device, 0) + size
        on_cards = {device: size for device, size in total.items() if device != RAM}
        return on_cards or total

    def _known(self, files: ModelFiles) -> _Known:
        # Looked at here only where nobody did it before: it takes some ten milliseconds.
        both = (files.path, files.draft)
        if both not in self._files:
            self._files[both] = _look(*both)
        return replace(self._files[both], adapters=needs.adapter_bytes(files.adapters.values()))

    def _estimated(self, known: _Known, model: Model, cards: Sequence[str], *, asleep: bool) -> dict[str, int]:
        devices = self.ledger.devices
        totals = {card: devices[card].total for card in cards}
        found = needs.needs(known.body, model, cards, totals, known.draft, known.adapters)
        if found is not None and asleep:
            found = needs.asleep(model, found)
        if found is None:
            return {}
        sizes = found.by_device()
        # A small machine serves a model that it has room for, with little room for finished prefixes.
        roomy = all(size <= devices[name].total - devices[name].margin for name, size in sizes.items())
        return sizes if roomy else found.least()

    def _expected(self, known: _Known, model: Model, cards: Sequence[str], *, asleep: bool = False) -> dict[str, int]:
        """What it took when it last ran so, else the estimate, else next to nothing."""
        estimated = dict.fromkeys(cards, _TOKEN) | self._estimated(known, model, cards, asleep=asleep)
        if known.digest is None:
            return estimated
        of, devices = _parameters(model, cards, asleep=asleep), self.ledger.devices
        found = self._corrections.expect(known.digest, of, {RAM: 0} | estimated, devices)
        # It ran: what it took then is no reason never to start it again.
        most = {name: max(estimated.get(name, 0), devices[name].total - devices[name].margin) for name in found}
        return {name: min(size, most[name]) for name, size in found.items() if size}

    async def _keep(self) -> None:
        """Write what is new: whatever ends this process must not take it along."""
        if self.kept is None or not self._news:
            return
        self._news = False
        try:
            await asyncio.to_thread(corrections.write, self.kept, self._corrections)
        except OSError as trouble:
            _logger.warning("what models took of memory cannot be written: %s", trouble.strerror)

    def _learn(
        self, digest: str, model: Model, cards: Sequence[str], sizes: Mapping[str, int], *, asleep: bool
    ) -> None:
        # The machine's memory is learned at the end of a life, when the most of it is known; of sleep, at once.
        here = {device: size for device, size in sizes.items() if device != RAM or asleep}
        self._corrections.learn(digest, _parameters(model, cards, asleep=asleep), {}, here, self.ledger.devices)
        self._news |= bool(here)

    def _end(self, peak: _Peak) -> None:
        if (peak.spec.files.path, peak.spec.files.draft) not in self._files or not peak.size:
            return
        known = self._known(peak.spec.files)
        if known.digest is None:
            return
        model, of = peak.spec.model, _parameters(peak.spec.model, peak.cards, asleep=False)
        estimated = self._estimated(known, model, peak.cards, asleep=False)
        self._corrections.learn(known.digest, of, estimated, {RAM: peak.size}, self.ledger.devices)
        self._news = True

    def _own_use(self, owner: str, found: Survey, card: str) -> int:
        """What a card's use says of the one owner that loaded last: starts on a card take turns."""
        reading = next((one for one in found.readings if one.device.id == card), None)
        standing = next(one for one in self.ledger.standing() if one.device.id == card)
        holding = self.ledger.holding(owner)
        if reading is None or holding is None:
            return 0
        others = standing.charged - holding.charged.get(card, 0) + standing.returning + standing.foreign
        return max(0, reading.used - others)

    def _look_for_cards(self, name: str, model: Model) -> None:
        """Say which cards a model is assigned to that this machine does not have, or does not show."""
        here = {one.index for one in self.ledger.devices.values() if one.kind != "ram"}
        gone = [str(number) for number in model.gpus if number not in here]
        if gone:
            which = f"card {gone[0]}, which is" if len(gone) == 1 else f"cards {', '.join(gone)}, which are"
            instead = "; it may use any" if len(gone) == len(model.gpus) else ""
            _logger.warning("model %s is assigned to %s not here%s", name, which, instead)

    def _wants_cards(self, model: Model) -> bool:
        """Whether it goes on cards where there are any: of llama.cpp only layers that were told to."""
        return model.engine != "llamacpp" or (bool(model.gpu_layers) and self.offloads)

    async def _survey(self, lives: Mapping[str, Life]) -> Survey:
        return await asyncio.to_thread(survey, self.monitor, lives)


def _look(path: Path, draft: Path | None) -> _Known:
    try:
        if draft is None:
            return _Known(needs.examine(path), needs.fingerprint(path))
        digest = f"{needs.fingerprint(path)}+{needs.fingerprint(draft)}"
        return _Known(needs.examine(path), digest, needs.examine(draft))
    except OSError:
        return _Known(None, None)


def _spreads(body: Body | None, model: Model, count: int) -> bool:
    """Whether one replica can be spread over so many cards. vLLM can by what divides the heads, if it is not told."""
    if model.engine != "vllm":
        return True
    told = [model.options.get(name) for name in ("tensor_parallel_size", "pipeline_parallel_size")]
    if any(told):
        return count == math.prod(one for one in told if isinstance(one, int) and one > 0)
    heads = body.config.get("num_attention_heads") if isinstance(body, Weights) else None
    return not isinstance(heads, int) or heads % count == 0


def _parameters(model: Model, cards: Sequence[str], *, asleep: bool) -> str:
    return corrections.parameters(model, len(cards)) + ("/asleep" if asleep else "")
