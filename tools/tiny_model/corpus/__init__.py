"""The text that the built-in model learns from, all of it written or generated here."""

from .generate import Corpus

__all__ = ["Corpus"]
