"""The serving process: ingress, pipeline, admin API."""
