"""The check of the endpoint's certificate, where an authority is asked for it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from lumen_cli.health.patient import Finding, Patient
from lumen_cli.output import moment

_LITTLE = 7 * 86_400.0


def certificate(patient: Patient) -> Iterator[Finding]:
    wanted = patient.config.server.tls.acme
    if wanted is None:
        return
    if find_spec("acme") is None:
        yield Finding(
            "certificate", "bad", "server.tls.acme needs a package that is missing", "install lumen-serve[acme]"
        )
        return
    held = ((patient.status or {}).get("tls") or {}).get("acme")
    names = ", ".join(wanted.domains)
    if held is None:
        if patient.status is not None:
            yield Finding("certificate", "warn", f"{names}: the running gateway was started without", "`lumen restart`")
        return
    mend = f"port 80 of {names} must lead to port {wanted.http_port} here, while it is ordered; see docs/security.md"
    if held["why"]:
        what = f"{names}: try {held['failed']} failed: {held['why']}; again at {moment(held['next'])}"
        # One that is there serves on, for a third of its life.
        yield Finding("certificate", "warn" if held["certified"] else "bad", what, mend)
    elif not held["certified"]:
        yield Finding("certificate", "warn", f"{names}: there is none yet; it is being ordered", mend)
    else:
        yield Finding("certificate", "ok", f"{names}: good until {moment(held['not_after'])}, then renewed in time")
