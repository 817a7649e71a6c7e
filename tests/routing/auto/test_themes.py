from __future__ import annotations

import numpy as np
import pytest

from lumen.routing.auto.themes import Themes


def clouds(rows: int, seed: int, width: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Points of three kinds, each about a middle of its own in the first two of many directions; centred."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, rows)
    points = 0.2 * rng.standard_normal((rows, width))
    points[:, :2] += np.array([[3.0, 0.0], [-2.0, 2.0], [-2.0, -2.0]])[kind]
    return (points - points.mean(axis=0)).astype(np.float32), kind


def test_requests_of_one_kind_are_alike_and_of_others_are_not() -> None:
    points, kind = clouds(300, 1)
    alike = Themes.of(points, points @ points.T).kernel()
    same = kind[:, None] == kind[None]
    assert alike[same].mean() > 5 * alike[~same].mean()


def test_labelled_requests_are_where_they_were_learnt_to_be() -> None:
    points, _ = clouds(200, 2)
    themes = Themes.of(points, points @ points.T)
    assert themes.alike(points[:7]) == pytest.approx(themes.kernel()[:7], abs=1e-3)
    assert np.diagonal(themes.kernel()) == pytest.approx(np.full(200, 0.5), abs=1e-3)


def test_the_same_requests_in_any_order_and_any_rotation_are_as_alike() -> None:
    points, _ = clouds(200, 3)
    order = np.random.default_rng(0).permutation(200)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((30, 30)))[0].astype(np.float32)
    plain, other = Themes.of(points, points @ points.T), (points @ turn)[order]
    turned = Themes.of(other, other @ other.T)
    near = plain.kernel()[np.ix_(order, order)]
    assert np.abs(turned.kernel() - near).mean() < 0.05


def test_requests_that_are_all_the_same_have_no_themes() -> None:
    points = np.zeros((30, 12), np.float32)
    themes = Themes.of(points, points @ points.T)
    assert themes.directions.shape == (12, 0) and themes.kernel() == pytest.approx(np.full((30, 30), 0.5))
