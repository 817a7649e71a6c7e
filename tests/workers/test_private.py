"""Where nothing of what is asked may be kept, an engine that is none of ours writes none of it to its log."""

from __future__ import annotations

from pathlib import Path

import pytest

from lumen.engines.base import Launch
from tests.workers.supervision import Fake, ask, fake_model, run, supervising, until, wanted


@pytest.mark.parametrize("phases", [True, False])
@pytest.mark.parametrize(("private", "discreet"), [(True, False), (False, False), (True, True)])
def test_what_an_engine_says_while_it_serves_is_kept_only_where_it_may(
    tmp_path: Path, private: bool, discreet: bool, phases: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = Fake.launch

    def discreetly(*args: object) -> Launch:
        made = launch(*args)  # type: ignore[arg-type]
        return Launch(**{**{name: getattr(made, name) for name in made.__slots__}, "discreet": discreet})

    monkeypatch.setattr(Fake, "launch", discreetly)

    async def work() -> None:
        async with supervising(tmp_path) as supervisor:
            supervisor.private = private
            await supervisor.apply(wanted(m=fake_model("tells", phases=phases)))
            lease = await supervisor.acquire("m", 90)
            # More than a pipe holds: it is read, or the engine would stand still.
            for _ in range(30):
                await ask(lease, "/" + "CANARY" * 500)
            lease.release(ok=True)
            log = supervisor.log("m", 0)
            kept = not private or discreet
            await until(lambda: ("CANARY" in log.read_text()) is kept)
            # Its start is told in any case.
            assert "fake worker starts" in log.read_text()
            assert "CANARY" not in log.read_text() or kept

    run(work())


def test_why_it_does_not_start_is_told_there_too(tmp_path: Path) -> None:
    async def work() -> None:
        async with supervising(tmp_path) as supervisor:
            supervisor.private = True
            await supervisor.apply(wanted(m=fake_model("crash", phases=False)))
            await until(lambda: any("out of luck" in line for one in supervisor.states() for line in one.lines))

    run(work())
