"""The YAML configuration: its shape, loading with line numbers, and rewriting that keeps comments."""
