"""PURE: the local models whose memory is kept free for them while they are away, for the sake of routes and of keys."""

from __future__ import annotations

from collections.abc import Iterable

from lumen.config.adapters import adapted, model_of
from lumen.config.schema import Config
from lumen.keys import Key


def claimed(config: Config, keys: Iterable[Key], now: float) -> set[str]:
    """Names of models: those of routes with `reserve`, and those that keys with it may ask at `now` (Unix seconds).

    A model's own `reserve` is not looked at here. A key that may use everything claims nothing.
    """
    wanting = [key for key in keys if key.reserve and key.active(now) and (key.models or key.routes)]
    targets = {
        target.model
        for name, route in config.routes.items()
        if route.reserve or any(key.allows(name, route=True) for key in wanting)
        for target in route.targets
    }
    # A route may have a model's name, and then it is the route that is asked.
    names = {*config.models, *adapted(config.models)} - config.routes.keys()
    targets |= {name for name in names if any(key.allows(name, route=False) for key in wanting)}
    return {model_of(name, config.models) for name in targets} & config.models.keys()
