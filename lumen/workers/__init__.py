"""Supervised engine processes and the worker programs."""
