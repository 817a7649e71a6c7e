"""Model files: where they come from, how they are fetched and kept."""
