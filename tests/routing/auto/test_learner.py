from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lumen.routing.auto import near, prior, ridge
from lumen.routing.auto.ask import Ask
from lumen.routing.auto.features import features, table
from lumen.routing.auto.learner import Labels, Row, fit, fit_table
from lumen.routing.auto.model import Model, ModelError
from lumen.routing.auto.scorer import Scorer
from tests.routing.auto.made import WORDS, labelled, traffic

NAMES = ("weak", "strong")


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    rows, labels, _ = labelled(600, 1)
    return Scorer.load(fit_table(rows, labels, NAMES, "strong").model.to_bytes())


def test_what_was_hidden_is_found(scorer: Scorer) -> None:
    easy = scorer.score(Ask("Tell me about the plural of a noun with blue river stone."))
    hard = scorer.score(Ask("Tell me about the torque on a rotating shaft with blue river stone."))
    assert easy.of("weak").loss < 0.2 < 0.3 < hard.of("weak").loss
    assert abs(easy.of("weak").ok - 0.9) < 0.15 and abs(hard.of("weak").ok - 0.4) < 0.17
    assert hard.of("strong").loss == 0.0
    assert 60 < (easy.of("weak").tokens or 0) < 200 < 225 < (hard.of("weak").tokens or 0)
    with pytest.raises(KeyError):
        easy.of("other")


def test_what_was_never_labelled_is_told(scorer: Scorer) -> None:
    assert scorer.score(Ask("Tell me about the plural of a noun.", images=1)).unseen == ("images",)
    strange = scorer.score(Ask("SELECT x FROM y WHERE z = 3; DROP TABLE q; 01101 0101 >>> <<<"))
    assert not strange.familiar and not scorer.score(Ask("hi", tools=2)).familiar


def test_what_looks_harder_than_all_labels_is_expected_to_lose_more() -> None:
    rng = np.random.default_rng(3)
    asks = [Ask(" ".join(rng.choice(WORDS, size))) for size in rng.integers(10, 60, 400)]
    rows = table(asks)
    looks = prior.score(rows.plain)
    needs = (rng.random(400) < np.clip(0.3 + 0.25 * looks, 0.0, 1.0)).astype(float)
    labels = Labels(np.stack((1.0 - needs, np.ones(400)), axis=1), np.full((400, 2), np.nan), np.ones(400))
    scorer = Scorer(fit_table(rows, labels, NAMES, "strong").model)
    seen, *longer = (
        scorer.score_table(table([Ask(" ".join(rng.choice(WORDS, size)))])).loss[0, 0] for size in (30, 90, 130, 180)
    )
    assert min(longer) > seen + 0.1


def test_one_and_many_score_alike(scorer: Scorer) -> None:
    rows, _, _ = labelled(20, 9)
    asks, _, _ = traffic(20, 9)
    many = scorer.score_table(rows)
    for i, one in enumerate(map(scorer.score, asks)):
        # Products of many rows are summed in another order than those of one.
        assert [each.ok for each in one.targets] == pytest.approx(many.ok[i], abs=1e-5)
        assert [each.loss for each in one.targets] == pytest.approx(many.loss[i], abs=1e-5)
        assert [each.tokens for each in one.targets] == pytest.approx(many.tokens[i], rel=1e-4)
        assert one.nearest == pytest.approx(many.nearest[i], abs=1e-5) and one.familiar == many.familiar[i]
        alone = scorer.score_table(rows.take(np.array([i])))
        assert [each.loss for each in one.targets] == pytest.approx(alone.loss[0], abs=2e-6)


def test_one_and_many_score_alike_where_neighbours_say_more() -> None:
    rows, labels, _ = labelled(400, 6)
    asks, _, _ = traffic(400, 6)
    ok = labels.ok.copy()
    ok[:, 0] = np.arange(400) % 2
    scorer = Scorer(fit_table(rows, Labels(ok, labels.tokens, labels.weights), NAMES, "strong").model)
    near_ones = Scorer(replace(scorer.model, scalars={**scorer.model.scalars, "doubt": 1.0}))
    many = near_ones.score_table(rows)
    found = [near_ones.score(ask).of("weak").loss for ask in asks]
    assert found == pytest.approx(many.loss[:, 0], abs=1e-5)
    assert not np.allclose(many.loss, scorer.score_table(rows).loss, atol=1e-3)


def test_one_unlike_all_labelled_requests_is_near_none() -> None:
    rows, labels, _ = labelled(200, 6)
    scorer = Scorer(fit_table(rows, labels, NAMES, "strong").model)
    strange = scorer.score(Ask("Грузовик везёт зелёные арбузы через мост 7 раз; σ(x) ≠ ∮ dz"))
    assert strange.nearest < 0.5 * scorer.score_table(rows).nearest.min()


def test_outlines_find_what_sketches_find_nearest() -> None:
    rows, _, _ = labelled(200, 6)
    sketches = near.sketch(rows.grams)
    turn = near.turn(sketches)
    assert turn.shape == (near.SKETCH, near.OUTLINE) and np.allclose(turn.T @ turn, np.eye(near.OUTLINE), atol=1e-5)
    whole, outlined = sketches @ sketches.T, (sketches @ turn) @ (sketches @ turn).T
    assert (whole + 1e-5 >= outlined).diagonal().all() and np.corrcoef(whole.ravel(), outlined.ravel())[0, 1] > 0.95


def test_left_out_rows_equal_a_fit_without_them() -> None:
    rng = np.random.default_rng(3)
    points = rng.standard_normal((60, 8)).astype(np.float32)
    kernel, labels = points @ points.T, rng.standard_normal((60, 1))
    weights = rng.uniform(0.5, 2.0, 60)
    whole = ridge.fit(ridge.Ridged(kernel, weights, 5.0), labels)
    rest = np.arange(60) != 17
    part = np.linalg.solve(kernel[np.ix_(rest, rest)] + np.diag(5.0 / weights[rest]), labels[rest, 0] - whole.mean[0])
    assert whole.left_out[17, 0] == pytest.approx(whole.mean[0] + kernel[17, rest] @ part, abs=1e-3)


def test_rows_that_are_all_alike_are_solved_in_full() -> None:
    """Two kinds of request, hundreds of each: single precision alone was off by a twentieth here."""
    rng = np.random.default_rng(0)
    kinds = rng.standard_normal((6, 400)).astype(np.float32) / np.float32(20)
    kernel = (points := kinds[rng.integers(0, 6, 960)]) @ points.T
    labels = (rng.random((960, 1)) < 0.5).astype(np.float64)
    found = ridge.fit(ridge.Ridged(kernel, np.ones(960), 3.0), labels)
    exact = np.linalg.solve(kernel.astype(np.float64) + 3.0 * np.eye(960), labels - labels.mean())
    assert np.allclose(kernel @ found.dual, kernel @ exact, atol=1e-3)


def test_the_inverse_by_halves() -> None:
    points = np.random.default_rng(0).standard_normal((700, 300)).astype(np.float32)
    matrix = points @ points.T / np.float32(300) + np.float32(2) * np.eye(700, dtype=np.float32)
    assert np.allclose(ridge.inverted(matrix) @ matrix, np.eye(700), atol=1e-4)


def test_missing_labels_and_a_third_target() -> None:
    asks, ok, _ = traffic(300, 5)
    rows = [
        Row(ask, {"weak": float(good[0]), "strong": float(good[1]), **({"spare": 1.0} if i % 3 == 0 else {})}, {})
        for i, (ask, good) in enumerate(zip(asks, ok, strict=True))
    ]
    learnt = fit(rows, ("strong", "weak", "spare"), "strong")
    assert np.isfinite(learnt.loss).all() and np.isfinite(learnt.ok).all()
    found = Scorer(learnt.model).score(asks[0])
    assert found.of("spare").ok > 0.9 and found.of("weak").tokens is None


def test_repeated_requests_are_answered_by_their_own_labels() -> None:
    rows, labels, _ = labelled(400, 6)
    # One easy request comes back sixty times, and the weak target always fails on it.
    ask = Ask("Tell me about a greeting for a friend in Klingon, in rhyme, please.")
    again = features(ask)
    ok = labels.ok.copy()
    for i in range(60):
        rows.grams[i], rows.plain[i], rows.subjects[i] = again.grams, again.plain, again.subjects
        ok[i] = (0.0, 1.0)
    learnt = fit_table(rows, Labels(ok, labels.tokens, labels.weights), NAMES, "strong")
    assert Scorer(learnt.model).score(ask).of("weak").loss > 0.8


def test_too_little() -> None:
    rows, labels, _ = labelled(19, 1)
    with pytest.raises(ValueError, match="19 labels are too few"):
        fit_table(rows, labels, NAMES, "strong")
    rows, labels, _ = labelled(30, 1)
    with pytest.raises(ValueError, match="not among the targets"):
        fit_table(rows, labels, NAMES, "other")


def test_the_file_is_the_same_each_time_and_refused_when_changed(scorer: Scorer) -> None:
    data = scorer.model.to_bytes()
    again = Model.from_bytes(data)
    assert again.to_bytes() == data and len(again.version) == 12
    for bad in (data[:-1], data[:200], b"PK" + data, data[:500] + b"x" + data[501:], b""):
        with pytest.raises(ModelError):
            Model.from_bytes(bad)


def test_the_prior_follows_the_abilities() -> None:
    short, long = (
        features(Ask("What is it?")).plain,
        features(Ask("Consider this: " + "a case of many words; " * 40)).plain,
    )
    assert prior.score(long) > prior.score(short)
    assert prior.score(long, (0.85, 0.95)) > prior.score(short, (0.85, 0.95))
    assert prior.score(long, (0.1, 0.3)) < prior.score(short, (0.1, 0.3))


def test_the_looks_of_one_request_are_its_prior() -> None:
    for text in (
        "",
        "What is it?",
        "Solve $x^2 + \\frac{1}{2} = \\pi$ for $x$ and $y$, $z$." * 3,
        "7 + 7?\nA. 1\nB. 2 $$$$$$$$",
    ):
        plain = features(Ask(text)).plain
        assert prior.looks(plain.tolist()) == pytest.approx(float(prior.score(plain)), abs=1e-6)


def test_groups_left_out_equal_a_fit_without_them_and_more_features_one_with_them() -> None:
    rng = np.random.default_rng(8)
    points, more = rng.standard_normal((50, 8)).astype(np.float32), rng.standard_normal((50, 3)).astype(np.float32)
    labels, weights = rng.standard_normal((50, 1)), rng.uniform(0.5, 2.0, 50)
    groups = np.arange(50)
    groups[[4, 9, 30]] = 4
    begun = ridge.Ridged(points @ points.T, weights, 5.0, groups)
    begun.inverse()
    whole = ridge.fit(begun.plus(more), labels)
    both = np.concatenate((points, more), axis=1)
    kernel, rest = both @ both.T, ~np.isin(np.arange(50), [4, 9, 30])
    part = np.linalg.solve(kernel[np.ix_(rest, rest)] + np.diag(5.0 / weights[rest]), labels[rest, 0] - whole.mean[0])
    expected = whole.mean[0] + kernel[[4, 9, 30]][:, rest] @ part
    assert whole.left_out[[4, 9, 30], 0] == pytest.approx(expected, abs=1e-3)


def test_what_is_nearly_the_same_is_a_group_unless_it_recurs() -> None:
    asks = [
        Ask(f"Who wrote the {i} {WORDS[i % 12]} {WORDS[i * 5 % 11]} on {'abcdefghij'[i % 10] * 5}?") for i in range(390)
    ]
    rare = [Ask(f"Kindly list the moons of Jupiter for my son, in order{mark}") for mark in (".", "!", "")]
    often = [Ask("What is the opening time of the shop in Ulm?")] * 7
    _, groups = near.compared(near.sketch(table([*asks, *rare, *often]).grams))
    assert set(groups[390:393]) == {390} and len(set(groups[393:])) == 7


def test_products_made_beforehand_change_nothing() -> None:
    rows, labels, _ = labelled(120, 3)
    some = np.arange(0, 120, 2)
    one = fit_table(rows.take(some), labels.take(some), NAMES, "strong")
    two = fit_table(rows.multiplied().draw(some), labels.take(some), NAMES, "strong")
    assert np.allclose(one.loss, two.loss, atol=1e-3)
