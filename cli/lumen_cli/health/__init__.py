"""The checks of `lumen doctor`: each looks at one thing and says what is wrong and how to mend it.

Nothing is changed, nothing is imported that could break: the engine is tried in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lumen.core.errors import LumenError
from lumen_cli.errors import CliError
from lumen_cli.health import certificate, install, state
from lumen_cli.health.patient import Finding, Patient

__all__ = ["CHECKS", "Finding", "Patient", "examine"]

CHECKS: tuple[Callable[[Patient], Iterator[Finding]], ...] = (
    install.python,
    install.packages,
    install.engine,
    install.compiler,
    install.hardware,
    state.disk,
    state.config,
    state.models,
    state.run_folder,
    state.port,
    certificate.certificate,
    state.leftovers,
    state.keys,
)


def examine(patient: Patient) -> list[Finding]:
    """Everything that was found, in the order of `CHECKS`; a check that cannot look says so."""
    found: list[Finding] = []
    for check in CHECKS:
        try:
            found += check(patient)
        except (OSError, LumenError, CliError) as error:
            name = check.__name__.replace("_", " ")
            found.append(Finding(name, "bad", f"cannot be looked at: {error}", "see the permissions of that file"))
    return found
