from __future__ import annotations

from typing import Any

import pytest

from lumen.core.errors import ConfigError
from lumen.engines._vllm_flags import argv
from lumen.engines.vllm import _shipped_flags

FLAGS = _shipped_flags()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, []),
        ({"max_num_seqs": 64}, ["--max-num-seqs=64"]),
        ({"max-num-seqs": 64}, ["--max-num-seqs=64"]),
        ({"gpu_memory_utilization": 0.5}, ["--gpu-memory-utilization=0.5"]),
        ({"enforce_eager": True}, ["--enforce-eager"]),
        ({"enforce_eager": False}, ["--no-enforce-eager"]),
        ({"disable_log_stats": True}, ["--disable-log-stats"]),
        ({"disable_log_stats": False}, []),
        ({"speculative_config": None}, []),
        ({"speculative_config": {"method": "mtp", "n": 1}}, ['--speculative-config={"method":"mtp","n":1}']),
        ({"lora_modules": ["a=/x", "b=/y"]}, ["--lora-modules", "a=/x", "b=/y"]),
        ({"lora_modules": {"name": "a"}}, ["--lora-modules", '{"name":"a"}']),
        ({"chat_template": "--not a flag"}, ["--chat-template=--not a flag"]),
        ({"dtype": "float32"}, ["--dtype=float32"]),
    ],
)
def test_options_become_flags(options: dict[str, Any], words: list[str]) -> None:
    assert argv(options, FLAGS) == words


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_nun_seqs": 1}, "no option 'max_nun_seqs'; did you mean 'max-num-seqs'"),
        ({"trust_remote_code": True}, "runs no code that comes with a model"),
        ({"trust-remote-code": False}, "runs no code that comes with a model"),
        ({"uds": "/x"}, "Lumen sets it itself"),
        ({"model": "x"}, "Lumen sets it itself"),
        ({"config": "/etc/x.yaml"}, "write the flags as options"),
        ({"hf_token": "x"}, "no secrets"),
        ({"max_model_len": 5}, "write `context`"),
        ({"load_format": "pt"}, "can run code"),
        ({"enforce_eager": 1}, "must be true or false"),
        ({"enforce_eager": "yes"}, "must be true or false"),
        ({"lora_modules": ["a", "--trust-remote-code"]}, "begin with no dash"),
        ({"lora_modules": []}, "begin with no dash"),
    ],
)
def test_what_is_not_for_options(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        argv(options, FLAGS)


def test_no_abbreviation_of_a_refused_flag_passes() -> None:
    for flag in ("trust-remote", "trust-r", "trust", "hf-tok", "serve", "ud"):
        with pytest.raises(ConfigError):
            argv({flag: True}, FLAGS)


def test_the_shipped_list_is_of_the_version_that_is_installed() -> None:
    assert len(FLAGS) > 250
    assert set(FLAGS.values()) == {"value", "switch", "on", "many"}
    assert not any(name.startswith("no-") for name in FLAGS)
