"""The life of one replica, PURE: state × event → state and what to do; the time is an argument.

    off ─START→ waiting ─TURN→ starting ─LISTENING→ probing ─ANSWERED→ ready ─STOP→ draining ─EXITED→ off
    ready ─SLEEP→ sleeping ─SLEPT→ asleep ─TURN→ waking ─ANSWERED→ ready
    any of these ── EXITED, FAILED, LATE, HUNG ──→ crashed ─DUE→ waiting

Any exit that was not asked for is a crash, also one with status 0. TURN is the pool's to give: memory is set aside,
and nothing else starts on the same card.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum


class State(Enum):
    OFF = "off"
    WAITING = "waiting"  # for memory and for its turn on its devices
    STARTING = "starting"  # the process runs (or is about to) and loads
    PROBING = "probing"  # it listens; whether it can answer is being asked
    READY = "ready"  # it answered a one-token inference
    SLEEPING = "sleeping"  # gives its device memory back
    ASLEEP = "asleep"  # the process lives, without device memory; answers nothing
    WAKING = "waking"  # takes its device memory again
    DRAINING = "draining"  # takes nothing new, ends when its answers are done
    CRASHED = "crashed"  # ended unasked; waits for its next start


class Event(Enum):
    START = "start"  # asked to run
    TURN = "turn"  # memory is set aside, and its devices are free to load
    LISTENING = "listening"  # accepts connections, model loaded
    ANSWERED = "answered"  # the first inference came back; after a sleep: it said that it is awake
    FAILED = "failed"  # could not be started at all, or not be put to sleep or woken
    EXITED = "exited"  # the process ended
    LATE = "late"  # not ready within its start limit
    HUNG = "hung"  # was ready, answers no more
    DUE = "due"  # the pause after a crash is over
    SLEEP = "sleep"  # asked to sleep
    SLEPT = "slept"  # it sleeps
    STOP = "stop"  # asked to end


class Action(Enum):
    NONE = "none"
    ASK = "ask"  # tell that it wants memory and a turn
    LAUNCH = "launch"  # start a new process
    PROBE = "probe"  # ask for a first inference until it comes
    SERVE = "serve"  # give it to whoever waits, watch over it
    REST = "rest"  # have it sleep
    SETTLE = "settle"  # it sleeps: nothing to do until it is woken
    ROUSE = "rouse"  # have it wake
    MEND = "mend"  # clear away what is left of the process, then wait for DUE
    DRAIN = "drain"  # let answers finish, then end the process
    END = "end"  # nothing is left to do


_S, _E, _A = State, Event, Action
_MEND = (_S.CRASHED, _A.MEND)
_DRAIN = (_S.DRAINING, _A.DRAIN)

TABLE: Mapping[tuple[State, Event], tuple[State, Action]] = {
    (_S.OFF, _E.START): (_S.WAITING, _A.ASK),
    (_S.WAITING, _E.TURN): (_S.STARTING, _A.LAUNCH),
    (_S.WAITING, _E.STOP): (_S.OFF, _A.END),
    (_S.STARTING, _E.LISTENING): (_S.PROBING, _A.PROBE),
    (_S.STARTING, _E.FAILED): _MEND,
    (_S.STARTING, _E.EXITED): _MEND,
    (_S.STARTING, _E.LATE): _MEND,
    (_S.STARTING, _E.STOP): _DRAIN,
    (_S.PROBING, _E.ANSWERED): (_S.READY, _A.SERVE),
    (_S.PROBING, _E.EXITED): _MEND,
    (_S.PROBING, _E.LATE): _MEND,
    (_S.PROBING, _E.STOP): _DRAIN,
    (_S.READY, _E.EXITED): _MEND,
    (_S.READY, _E.HUNG): _MEND,
    (_S.READY, _E.STOP): _DRAIN,
    (_S.READY, _E.SLEEP): (_S.SLEEPING, _A.REST),
    (_S.SLEEPING, _E.SLEPT): (_S.ASLEEP, _A.SETTLE),
    # One that cannot sleep ends instead: somebody else needs its memory.
    (_S.SLEEPING, _E.FAILED): _DRAIN,
    (_S.SLEEPING, _E.EXITED): _MEND,
    (_S.SLEEPING, _E.LATE): _MEND,
    (_S.SLEEPING, _E.STOP): _DRAIN,
    (_S.ASLEEP, _E.TURN): (_S.WAKING, _A.ROUSE),
    (_S.ASLEEP, _E.EXITED): _MEND,
    (_S.ASLEEP, _E.STOP): _DRAIN,
    (_S.WAKING, _E.ANSWERED): (_S.READY, _A.SERVE),
    (_S.WAKING, _E.FAILED): _MEND,
    (_S.WAKING, _E.EXITED): _MEND,
    (_S.WAKING, _E.LATE): _MEND,
    (_S.WAKING, _E.STOP): _DRAIN,
    (_S.DRAINING, _E.EXITED): (_S.OFF, _A.END),
    (_S.CRASHED, _E.DUE): (_S.WAITING, _A.ASK),
    (_S.CRASHED, _E.STOP): (_S.OFF, _A.END),
}


@dataclass(frozen=True, slots=True)
class Timing:
    """Every limit of supervision, in seconds. Tests shorten them; nobody else should need to."""

    backoff: float = 0.25  # the pause after a first crash; doubles with each further one
    backoff_most: float = 30.0
    forgiven: float = 60.0  # health that long and the earlier crashes are forgotten
    first_probe: float = 120.0  # a first inference may compile kernels
    probe_pause: float = 0.5  # between two tries while starting
    poll: float = 0.05  # how often a starting process is looked at
    follow: float = 0.25  # how often the log of a starting process is looked at
    watch: float = 15.0  # silence after which a ready replica is asked again
    watch_limit: float = 15.0  # how long it may take to answer that
    strikes: int = 2  # unanswered probes in a row that make a hang
    replaced: float = 900.0  # how long a replaced replica may finish its answers
    last_words: float = 2.0  # between SIGTERM and SIGKILL once the time to drain is used up
    sweep: float = 5.0  # how long killed processes may take to vanish
    slumber: float = 60.0  # how long going to sleep, or waking, may take


@dataclass(frozen=True, slots=True)
class Life:
    """Where one replica stands. Times are on the clock that `step` is given.

    `crashes`: crashes since it was last healthy for a minute. `failed_starts`: starts in a row that never
    became ready. `wake`: when LATE (while it starts, is probed, falls asleep or wakes) or DUE (while crashed) comes,
    else `None`.
    """

    start_timeout: float
    state: State = State.OFF
    since: float = 0.0
    crashes: int = 0
    failed_starts: int = 0
    restarts: int = 0
    wake: float | None = None


def backoff(crashes: int, timing: Timing) -> float:
    """The pause before the next start after that many crashes (≥ 1)."""
    # The exponent is bounded: 2.0 ** 1100 overflows, and a replica may crash for a year.
    return min(timing.backoff * 2.0 ** min(crashes - 1, 30), timing.backoff_most)


def step(life: Life, event: Event, now: float, timing: Timing) -> tuple[Life, Action]:
    """What `event` makes of `life`. One that comes too late to matter changes nothing."""
    state, action = TABLE.get((life.state, event), (life.state, Action.NONE))
    if action is Action.NONE:
        return life, action
    after = replace(life, state=state, since=now, wake=None)
    if action is Action.ASK:
        after = replace(after, restarts=life.restarts + (event is Event.DUE))
    elif action is Action.LAUNCH:
        after = replace(after, wake=now + life.start_timeout)
    elif action in (Action.REST, Action.ROUSE):
        after = replace(after, wake=now + timing.slumber)
    elif action is Action.PROBE:
        after = replace(after, wake=life.wake)
    elif action is Action.SERVE:
        after = replace(after, failed_starts=0)
    elif action is Action.MEND:
        was_up = life.state in (State.READY, State.SLEEPING, State.ASLEEP)
        forgiven = was_up and now - life.since >= timing.forgiven
        crashes = 1 if forgiven else life.crashes + 1
        failed = 0 if was_up else life.failed_starts + 1
        wake = now + backoff(crashes, timing)
        after = replace(after, crashes=crashes, failed_starts=failed, wake=wake)
    return after, action


def expiry(state: State) -> Event:
    """The event that `Life.wake` stands for in that state."""
    return Event.DUE if state is State.CRASHED else Event.LATE
