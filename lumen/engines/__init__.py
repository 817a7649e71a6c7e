"""One file an engine: what to run, how to probe it, what it can do."""
