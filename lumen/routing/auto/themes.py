"""What a request is about, found without labels: its place along the directions in which the labelled ones differ most.

Ridge regression on n-grams is linear in them; most of what tells targets apart is which group of requests one belongs
to, and that is not. So the kernel has a Gaussian part over these few places. Directions are the leading principal
components, by subspace iteration (N. Halko et al., SIAM Review 53, 2011), each with a part of its spread taken out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lumen.routing.auto.hashing import normals

F32 = NDArray[np.float32]

# How many directions; how many are followed to find them, and how often.
_THEMES, _FOLLOWED, _ROUNDS, _SEED = 10, 20, 4, 14
# What the part weighs in the kernel, and how near is near where the mean distance from the origin is 1.
WEIGHT, _WIDTH = np.float32(0.5), 0.4
_NONE = 1e-6


@dataclass(frozen=True)
class Themes:
    """`directions` (SIZE × themes), in units of the width. `places` (n × themes): of the labelled requests."""

    directions: F32
    places: F32

    @staticmethod
    def of(points: F32, kernel: F32) -> Themes:
        """Found from the labelled requests' `points` (n × SIZE) and their inner products (n × n)."""
        rows = len(points)
        kernel = kernel - np.outer(points[:, -1], points[:, -1])
        basis = normals(_SEED, (rows, min(_FOLLOWED, rows)))
        for _ in range(_ROUNDS):
            basis = np.linalg.qr(kernel @ basis)[0]
        sizes, turns = np.linalg.eigh(basis.T @ (kernel @ basis))
        kept = np.flatnonzero(sizes > _NONE * max(float(sizes[-1]), 1.0))[::-1][:_THEMES]
        if not len(kept):
            return Themes(np.zeros((points.shape[1], 0), np.float32), np.zeros((rows, 0), np.float32))
        along = (points.T @ (basis @ turns[:, kept])) / np.sqrt(sizes[kept])
        # How hard a request looks is not what it is about.
        along[-1] = 0.0
        along /= np.sqrt((points @ along).std(axis=0))
        places = points @ along
        unit = float(np.sqrt((places**2).sum(axis=1).mean())) * _WIDTH
        return Themes((along / unit).astype(np.float32), (places / unit).astype(np.float32))

    def alike(self, points: F32) -> F32:
        """The kernel's part between `points` (m × SIZE) and the labelled requests (m × n)."""
        return self._near(points @ self.directions)

    def alike_one(self, wide: F32) -> F32:
        """The same (n) of one request, before it is weighed with `WEIGHT`. `wide`: where its point times `directions`
        is `place`, that, then `place · place`, then 1."""
        away: F32 = self._wide.dot(wide)
        np.exp(away, out=away)
        return away

    def kernel(self) -> F32:
        """The kernel's part between each two labelled requests (n × n)."""
        return self._near(self.places)

    @cached_property
    def _wide(self) -> F32:
        """With what `alike_one` takes, minus half the squared distances: one product in place of five operations."""
        halves = np.full(len(self.places), -0.5, np.float32)
        return np.ascontiguousarray(np.column_stack((self.places, halves, -self._halves)))

    @cached_property
    def _halves(self) -> F32:
        """Half the squared distance of each labelled request from the origin."""
        found: F32 = np.add.reduce(self.places * self.places, axis=1) / 2
        return found

    def _near(self, places: F32) -> F32:
        away = places @ self.places.T
        away -= self._halves
        away -= np.add.reduce(places * places, axis=1)[:, None] / 2
        np.minimum(away, 0.0, out=away)
        np.exp(away, out=away)
        away *= WEIGHT
        return away
