"""The time to the first token in its parts, for the `Server-Timing` header, metrics and whoever looks. Pure.

| part | what it is |
| --- | --- |
| `gateway` | the gateway's own work until the target that answered was asked, failed tries at others included |
| `wake` | a local model started or woke |
| `queue` | waiting for a turn: at the model's door, and at the target until it began to answer |
| `prefill` | from then to the first token |
| `first` | all of it, from the request to the first token |
"""

from __future__ import annotations

from collections.abc import Sequence

from lumen.gateway.attempt import Record


def parts(attempts: Sequence[Record], started: float, *, stream: bool) -> dict[str, float]:
    """Seconds by part, of the try that gave the first token, else of the last one; empty where no target was asked.

    Of a whole answer nobody sees the first token: it has no `prefill` and no `first`.
    """
    found = next((one for one in attempts if one.first_token is not None), attempts[-1] if attempts else None)
    if found is None or found.sent is None or found.answered is None:
        return {}
    before = max(found.sent - started - found.queued - found.woke, 0.0)
    told = {"gateway": before, "wake": found.woke, "queue": found.queued}
    if stream and found.first_token is not None:
        told["queue"] += found.answered - found.sent
        told["prefill"] = max(found.first_token - found.answered, 0.0)
        told["first"] = found.first_token - started
    return told


def headers(attempts: Sequence[Record], started: float, *, stream: bool) -> dict[str, str]:
    """`Server-Timing`, in milliseconds, where there is something to tell. Source: W3C Server Timing."""
    told = parts(attempts, started, stream=stream)
    text = ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in told.items())
    return {"server-timing": text} if text else {}
