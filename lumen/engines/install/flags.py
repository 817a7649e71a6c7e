"""Run by the Python of an environment, not by Lumen's: prints the flags of vLLM's server as one JSON object.

{"max-model-len": "value", "enforce-eager": "switch", ...}; a `switch` has a `--no-` form too, `on` has none,
`many` takes several words.
"""

from __future__ import annotations

import argparse
import json
import sys

import vllm.engine.arg_utils  # noqa: F401 - first: the modules of vLLM import each other in a circle
from vllm.utils.argparse_utils import FlexibleArgumentParser

try:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
except ImportError:
    from vllm.entrypoints.openai.cli_args import make_arg_parser


def kind(action: argparse.Action) -> str:
    if isinstance(action, argparse.BooleanOptionalAction):
        return "switch"
    if action.nargs == 0:
        return "on"
    return "many" if action.nargs in ("+", "*") else "value"


def main() -> None:
    actions = make_arg_parser(FlexibleArgumentParser())._actions
    flags = {
        name[2:]: kind(action)
        for action in actions
        for name in action.option_strings
        if name.startswith("--") and not (kind(action) == "switch" and name.startswith("--no-"))
    }
    flags.pop("help", None)
    sys.stdout.write("\n" + json.dumps(flags, indent=1, sort_keys=True) + "\n")


main()
