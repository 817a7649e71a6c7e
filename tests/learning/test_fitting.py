"""From labels to a certified scorer: on a traffic whose truth is known."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import numpy as np
import pytest

from lumen.learning import fit as fitted
from lumen.learning.asks import numbers_of, pack, read, text_of, unpack
from lumen.learning.fitting import History, fit, history
from lumen.ledger.labels import Label, Labels
from lumen.routing.auto.ask import Ask
from lumen.routing.auto.features import features
from lumen.routing.auto.model import Model
from lumen.routing.auto.scorer import Scorer

TARGETS = ("cheap", "strong")
EASY = "Please translate this short greeting number {} into French: good morning"
HARD = "Prove that the sequence number {} converges and compute its limit with an epsilon delta argument"


def traffic(
    count: int,
    seed: int = 1,
    *,
    hard_ok: float = 0.1,
    easy_ok: float = 1.0,
    same_length: bool = False,
    texts: bool = False,
) -> list[Label]:
    """Half of the requests are hard; the cheap target fails at most of those and at few others."""
    rng = random.Random(seed)
    made = []
    tokens = {"cheap": 20.0, "strong": 30.0} if same_length else {}
    for number in range(count):
        hard = rng.random() < 0.5
        ask = Ask((HARD if hard else EASY).format(rng.randrange(10_000)))
        form, data = text_of(ask) if texts else numbers_of(ask)
        cheap = float(rng.random() < (hard_ok if hard else easy_ok))
        made.append(
            Label(
                f"req_{number}",
                "judge",
                "chat",
                number,
                {"cheap": cheap, "strong": 1.0},
                tokens,
                propensity=0.05,
                form=form,
                ask=data,
            )
        )
    return made


def turned() -> list[Label]:
    """What was easy for the cheap target until yesterday it fails at since."""
    return traffic(800) + [
        Label(f"new_{one.request}", one.source, one.route, 10_000 + one.at, {"cheap": 0.0, "strong": 1.0},
              propensity=one.propensity, form=one.form, ask=one.ask)
        for one in traffic(200, 2)
    ]  # fmt: skip


def known(labels: list[Label]) -> History:
    found = history(labels, TARGETS, "strong")
    assert found is not None
    return found


def test_below_300_labels_it_says_how_many_are_missing() -> None:
    found = fit(known(traffic(120)), TARGETS, "strong", 0.01, 0.95)
    assert (found.data, found.labels, found.missing) == (None, 120, 180)
    assert fit(None, TARGETS, "strong", 0.01, 0.95).missing == 300


def test_what_is_learnt_sends_the_easy_away_and_keeps_the_hard() -> None:
    found = fit(known(traffic(1_200)), TARGETS, "strong", 0.02, 0.95)
    assert found.data is not None and not found.refused
    model = Model.from_bytes(found.data)
    promise = model.promise_of("cheap")
    assert promise is not None and promise.score is not None and promise.share > 0.3 and promise.bound <= 0.02
    scorer = Scorer(model)
    rng = random.Random(8)
    away = {
        text: sum(
            scorer.score(Ask(text.format(rng.randrange(10_000)))).of("cheap").loss <= promise.score for _ in range(50)
        )
        for text in (EASY, HARD)
    }
    assert away[EASY] >= 35 and away[HARD] <= 2
    assert found.report["replay"]["off_strong"] > 0.3 and found.report["replay"]["loss"] < 0.02
    assert found.report["replayed_on"] == 240


def test_answers_that_are_all_of_one_length_spoil_nothing() -> None:
    found = fit(known(traffic(600, same_length=True)), TARGETS, "strong", 0.02, 0.95)
    assert not found.refused and found.report["replay"]["off_strong"] > 0.3
    assert found.report["replay"]["loss"] < 0.02


def test_a_cheap_target_that_is_bad_at_everything_gets_nothing() -> None:
    found = fit(known(traffic(400, hard_ok=0.1, easy_ok=0.5)), TARGETS, "strong", 0.01, 0.95)
    assert found.data is not None
    promise = Model.from_bytes(found.data).promise_of("cheap")
    assert promise is not None and promise.score is None
    assert found.report["replay"] == {"off_strong": 0.0, "loss": 0.0, "loss_at_least": 0.0}


def test_a_replay_that_breaks_the_promise_keeps_it_out_of_force() -> None:
    found = fit(known(turned()), TARGETS, "strong", 0.02, 0.95)
    assert "more than the 2.0% it promises" in found.refused and not found.withdrawn


def test_what_is_in_force_and_loses_more_than_it_promised_is_withdrawn() -> None:
    before = fit(known(traffic(800)), TARGETS, "strong", 0.02, 0.95)
    found = fit(known(turned()), TARGETS, "strong", 0.02, 0.95, live=before.data)
    assert found.refused and "what is in force loses" in found.withdrawn
    strict = fit(known(traffic(800, hard_ok=0.1, easy_ok=0.5)), TARGETS, "strong", 0.01, 0.95)
    assert not fit(known(turned()), TARGETS, "strong", 0.02, 0.95, live=strict.data).withdrawn
    assert not fit(known(turned()), TARGETS, "strong", 0.02, 0.95, live=b"nonsense").withdrawn


def test_the_scorer_in_force_is_replayed_beside_the_new_one() -> None:
    before = fit(known(traffic(600)), TARGETS, "strong", 0.02, 0.95)
    after = fit(known(traffic(900, 3)), TARGETS, "strong", 0.02, 0.95, live=before.data)
    assert after.report["replay_of_live"]["off_strong"] > 0.3
    broken = fit(known(traffic(400, 3)), TARGETS, "strong", 0.02, 0.95, live=b"nonsense")
    assert "no routing model" in broken.report["replay_of_live"]["why"]


def test_learning_is_deterministic() -> None:
    one, two = (fit(known(traffic(400)), TARGETS, "strong", 0.02, 0.95) for _ in range(2))
    assert one.data == two.data and one.report == two.report


def test_of_several_words_on_a_request_the_weightiest_counts_and_half_words_do_not() -> None:
    base = traffic(1)[0]
    labels = [
        Label("r1", "judge", "chat", 1, {"cheap": 0.0, "strong": 1.0}, form=base.form, ask=base.ask),
        Label("r1", "checker", "chat", 2, {"cheap": 1.0, "strong": 1.0}, form=base.form, ask=base.ask),
        Label("r2", "feedback", "chat", 3, {"cheap": 1.0}, form=base.form, ask=base.ask),
        Label("r3", "judge", "chat", 4, {"cheap": 1.0, "strong": 0.0}),
        Label("r4", "judge", "chat", 5, {"other": 1.0, "strong": 0.0}, form=base.form, ask=base.ask),
        Label("r5", "judge", "chat", 6, {"cheap": 1.0, "strong": 0.0}, form="features-0", ask=base.ask),
    ]
    found = known(labels)
    assert found.requests == ("r1",) and found.ok.tolist() == [[1.0, 1.0]]
    assert history(labels[2:], TARGETS, "strong") is None


@pytest.mark.parametrize(
    ("source", "judged", "said", "learnt"),
    [
        ("checker", (1.0, 1.0), {"strong": 0.0}, (1.0, 0.0)),
        ("checker", (0.0, 1.0), {"cheap": 0.7}, (0.7, 1.0)),
        # A judge says which is better, so a tie moves as a whole.
        ("judge", (1.0, 1.0), {"strong": 0.0}, (0.0, 0.0)),
        ("judge", (1.0, 1.0), {"strong": 1.0}, (1.0, 1.0)),
        ("judge", (0.0, 1.0), {"strong": 0.0}, (0.0, 0.0)),
        ("judge", (1.0, 0.0), {"strong": 1.0}, (1.0, 1.0)),
        ("judge", (0.0, 1.0), {"strong": 1.0}, (0.0, 1.0)),
        # A third target's answer was none of the two.
        ("judge", (0.0, 1.0), {"other": 0.0}, (0.0, 1.0)),
    ],
)
def test_what_a_person_says_of_an_answer_corrects_what_was_judged(
    source: str, judged: tuple[float, float], said: dict[str, float], learnt: tuple[float, float]
) -> None:
    base = traffic(1)[0]
    ok = dict(zip(TARGETS, judged, strict=True))
    labels = [
        Label("r1", source, "chat", 1, ok, form=base.form, ask=base.ask),
        Label("r1", "feedback", "chat", 2, said, form=base.form, ask=base.ask),
        Label("r2", source, "chat", 3, ok, form=base.form, ask=base.ask),
    ]
    assert known(labels).ok.tolist() == [list(learnt), list(judged)]
    assert known(labels[::-1]).ok.tolist() == [list(learnt), list(judged)]


def test_much_feedback_takes_no_place_of_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitted, "MOST", 5)
    store = Labels(tmp_path / "ledger.db")
    for label in traffic(8):
        store.add(label)
    for label in traffic(8):
        store.add(Label(label.request, "feedback", "chat", 100 + label.at, {"strong": 0.5}))
    labels = fitted.gathered(store, "chat")
    assert [label.source for label in labels] == ["judge"] * 5 + ["feedback"] * 8
    assert known(labels).ok[:, 1].tolist() == [0.5] * 5
    store.close()


def test_what_a_distrusted_judge_said_takes_no_place_of_what_others_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitted, "MOST", 5)
    store = Labels(tmp_path / "ledger.db")
    for number, label in enumerate(traffic(12)):
        store.add(msgspec.structs.replace(label, versions="bad" if number >= 6 else "good"))
    assert [label.versions for label in fitted.gathered(store, "chat", ["bad"])] == ["good"] * 5
    assert [label.versions for label in fitted.gathered(store, "chat")] == ["bad"] * 5
    store.close()


def test_requests_drawn_more_often_do_not_bend_the_promise() -> None:
    """Hard requests are drawn ten times as often: a promise about the drawn ones would be another's."""
    rng = random.Random(5)
    labels = []
    for label in traffic(4_000, 7, hard_ok=0.0):
        hard = label.ok["cheap"] == 0.0
        chance = 0.5 if hard else 0.05
        if rng.random() < chance:
            labels.append(Label(label.request, "judge", "chat", label.at, label.ok, propensity=chance, form=label.form,
                                ask=label.ask))  # fmt: skip
    found = fit(known(labels), TARGETS, "strong", 0.05, 0.9)
    assert found.data is not None
    promise = Model.from_bytes(found.data).promise_of("cheap")
    # Half of the requests are easy, although nine tenths of the labels are about hard ones.
    assert promise is not None
    assert promise.labels < 0.35 * len(labels)


@pytest.mark.parametrize("text", ["", "hello", "x y z " * 3_000, "Σ ∫ \u2603 " * 50])
def test_features_survive_being_packed(text: str) -> None:
    one = features(Ask(text, system="be brief", context="before", turns=2, tools=1, tags=("a=b",)))
    again = unpack(pack(one))
    assert np.allclose(again.grams, one.grams, atol=1e-3)
    assert (again.plain == one.plain).all() and (again.subjects == one.subjects).all()


def test_text_and_features_are_read_the_same() -> None:
    ask = Ask("What is this?", system="s", tags=("app=x",))
    both = [
        read(Label("r", "judge", "chat", 1, {}, form=form, ask=data)) for form, data in (text_of(ask), numbers_of(ask))
    ]
    assert both[0] is not None and both[1] is not None
    assert np.allclose(both[0].grams, both[1].grams, atol=1e-3)
    assert read(Label("r", "judge", "chat", 1, {}, form="text", ask=b"{")) is None
    assert text_of(Ask("a", system="s" * 100_000))[0].startswith("features")


@pytest.mark.parametrize("data", [b"", b"\x01", b"\xff\xff\xff\xff" + b"\x00" * 500])
def test_bytes_that_are_no_features_are_told(data: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        unpack(data)
