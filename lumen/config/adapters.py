"""PURE: the names under which a local model's adapters are asked for: `MODEL:ADAPTER`."""

from __future__ import annotations

from collections.abc import Mapping

from lumen.config.schema import Model


def adapted(models: Mapping[str, Model]) -> dict[str, tuple[str, str]]:
    """Name → (model, adapter), of every adapter of `models`."""
    return {f"{name}:{adapter}": (name, adapter) for name, model in models.items() for adapter in model.adapters}


def model_of(name: str, models: Mapping[str, Model]) -> str:
    """The model that serves a local target: itself, or the one whose adapter it is."""
    if name in models:
        return name
    model, _, adapter = name.rpartition(":")
    return model if model in models and adapter in models[model].adapters else name
