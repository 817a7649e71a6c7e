"""What OpenTelemetry's semantic conventions for generative AI call things: one place for spans and metrics. Pure."""

from __future__ import annotations

_OPERATIONS = {"chat/completions": "chat", "completions": "text_completion", "embeddings": "embeddings"}
# Ends of a request that are nobody's error: it was answered, or its client left.
GOOD = ("ok", "cancelled")
# The provider of local models.
OWN = "lumen"


def operation_name(operation: str) -> str:
    """`gen_ai.operation.name` of an endpoint; those that the conventions have no name for keep their own."""
    return _OPERATIONS.get(operation, operation)


def provider_and_model(target: str) -> tuple[str, str]:
    """`gen_ai.provider.name` and the model's name there; empty where no target was asked."""
    provider, slash, name = target.partition("/")
    if not target:
        return "", ""
    return (provider, name) if slash else (OWN, target)
