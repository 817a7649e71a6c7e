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
    found = _told_of(attempts)
    if found is None or found.sent is None or found.answered is None:
        return {}
    before = found.sent - started - found.queued - found.woke
    before = before if before > 0.0 else 0.0
    told = {"gateway": before, "wake": found.woke, "queue": found.queued}
    if stream and found.first_token is not None:
        told["queue"] += found.answered - found.sent
        told["prefill"] = max(found.first_token - found.answered, 0.0)
        told["first"] = found.first_token - started
    return told


def headers(attempts: Sequence[Record], started: float, *, stream: bool) -> dict[str, str]:
    """`Server-Timing`, in milliseconds, where there is something to tell. Source: W3C Server Timing."""
    told = parts(attempts, started, stream=stream)
    if not told:
        return {}
    # As one text for most requests: this is on the path of each of them.
    gateway, wake, queue = told["gateway"] * 1e3, told["wake"] * 1e3, told["queue"] * 1e3
    text = f"gateway;dur={gateway:.1f}, wake;dur={wake:.1f}, queue;dur={queue:.1f}"
    if "first" in told:
        text += f", prefill;dur={told['prefill'] * 1e3:.1f}, first;dur={told['first'] * 1e3:.1f}"
    return {"server-timing": text}


def _told_of(attempts: Sequence[Record]) -> Record | None:
    for one in attempts:
        if one.first_token is not None:
            return one
    return attempts[-1] if attempts else None
