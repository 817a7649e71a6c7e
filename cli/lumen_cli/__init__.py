"""The lumen command."""
