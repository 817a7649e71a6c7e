"""What something may cost in all: held before, settled after. Pure. Amounts are pico-dollars."""

from __future__ import annotations

from dataclasses import dataclass

_IN_A_ROW = 5


@dataclass(slots=True)
class Ceiling:
    """`spent` and `held` together never pass `limit`. What was held when a process ended counts as spent in the next.

    `exhausted`: several amounts in a row did not fit although nothing else was held; one may just have been large.
    """

    limit: int
    spent: int = 0
    held: int = 0
    refused: int = 0

    @property
    def exhausted(self) -> bool:
        return self.refused >= _IN_A_ROW

    def hold(self, amount: int) -> bool:
        """Set so much aside; False where it does not fit."""
        if self.spent + self.held + amount > self.limit:
            self.refused += not self.held
            return False
        self.held += amount
        if amount:
            self.refused = 0
        return True

    def settle(self, amount: int, cost: int) -> None:
        """What was set aside has come to `cost`."""
        self.held -= amount
        self.spent += cost

    def dump(self) -> dict[str, int]:
        """As it is kept: what is held counts as spent, because a crash forgets what became of it."""
        return {"limit": self.limit, "spent": self.spent + self.held}
