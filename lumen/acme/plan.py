"""When a certificate is ordered, and when again after that failed. Pure: no clock, no chance, no files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# Of a certificate's life, what passes before it is renewed, and over how much of it renewals are spread.
_RENEW = 2 / 3
_SPREAD = 1 / 24
# Seconds: the longest wait after the first failure, what each further one multiplies it by, the longest of all. An
# authority such as Let's Encrypt allows five failed validations of a name an hour.
_FIRST, _GROWTH, _LONGEST = 120.0, 4.0, 3600.0
# Seconds: what an authority may ask for at most.
_MOST_ASKED = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Standing:
    """A certificate as it lies there: for whom, from when to when (seconds since 1970), and the file's SHA-256."""

    names: tuple[str, ...]
    not_before: float
    not_after: float
    self_signed: bool
    digest: str

    def covers(self, domains: Iterable[str]) -> bool:
        """Whether an authority made it, for all of `domains` at least."""
        return not self.self_signed and {name.lower() for name in domains} <= set(self.names)


@dataclass(frozen=True, slots=True)
class Tries:
    """Failures since the last success, when the next try may be (seconds since 1970), and why the last one failed."""

    failed: int = 0
    after: float = 0.0
    why: str | None = None


def due(standing: Standing | None, domains: Iterable[str], draw: float) -> float:
    """When the next certificate is to be ordered, in seconds since 1970; 0.0: at once.

    After two thirds of the life, spread by `draw` (from 0 to 1), so that many boxes do not come in the same minute.
    """
    if standing is None or not standing.covers(domains):
        return 0.0
    life = standing.not_after - standing.not_before
    return standing.not_before + life * (_RENEW + _SPREAD * draw)


def failed(before: Tries, why: str, now: float, draw: float, asked: float = 0.0) -> Tries:
    """What stands after a failure: full jitter under a ceiling that grows. `asked`: seconds the authority wants."""
    ceiling = min(_LONGEST, _FIRST * _GROWTH ** min(before.failed, 16))
    wait = ceiling * draw
    if asked > 0:
        # Its word, and then not everybody at once.
        wait = min(asked, _MOST_ASKED) + _FIRST * draw
    return Tries(before.failed + 1, now + wait, why)
