"""Five running workers, load, and failures, on this machine alone; and what Prometheus sees of it."""
