"""Lumen: one OpenAI-compatible endpoint over local engines and remote providers."""

__version__ = "0.1.0"
