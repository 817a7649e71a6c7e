"""Isolated environments for engines whose packages must not mix with Lumen's own: made, listed, removed.

data/engines/vllm-0.32.0-cpu/          a virtualenv; `lumen-environment.json` in it is written last
data/engines/.cache/                   wheels of an installation that is under way or was interrupted
"""
