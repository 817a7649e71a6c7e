"""For every test: hypothesis without a deadline (machines are shared), and the same examples in every CI run."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("lumen", deadline=None)
settings.register_profile("lumen-ci", deadline=None, derandomize=True)
settings.load_profile("lumen-ci" if os.environ.get("CI") else "lumen")
