"""Newer Mistral templates: `[TOOL_CALLS]name[ARGS]{…}`, the opener again before each further call."""

from __future__ import annotations

from lumen.workers.llamacpp.chat.families.mistral import Mistral

FAMILY = Mistral("mistral_args", named=True)
