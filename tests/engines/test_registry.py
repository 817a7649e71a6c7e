from __future__ import annotations

import subprocess
import sys

import pytest

from lumen.core.errors import ConfigError
from lumen.engines.registry import engine, names


def test_engines_are_found_by_file_name() -> None:
    assert {"command", "llamacpp"} <= set(names())
    assert not {"base", "registry", "_options"} & set(names())
    assert engine("llamacpp") is engine("llamacpp")


@pytest.mark.parametrize(("wrong", "hint"), [("lamacpp", "did you mean 'llamacpp'"), ("", "valid: "), ("base", "")])
def test_an_unknown_engine_names_the_nearest(wrong: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=f"no engine '{wrong}'; .*{hint}"):
        engine(wrong)


def test_a_name_never_becomes_a_path() -> None:
    for name in ("../x", "base.os", "_options", "lumen.core"):
        with pytest.raises(ConfigError):
            engine(name)


def test_only_the_engine_asked_for_is_imported() -> None:
    code = (
        "import sys; from lumen.engines.registry import engine, names; names()\n"
        "assert 'lumen.engines.command' not in sys.modules\n"
        "engine('llamacpp').missing()\n"
        "assert 'lumen.engines.command' not in sys.modules and 'llama_cpp' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
