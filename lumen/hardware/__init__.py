"""What this machine has, and the profile that matches it."""

from __future__ import annotations

from lumen.hardware.detection import detect
from lumen.hardware.machine import Gpu, Hardware, Note
from lumen.hardware.profiles import Profile, load_profiles, match, pick

__all__ = ["Gpu", "Hardware", "Note", "Profile", "detect", "load_profiles", "match", "pick"]
