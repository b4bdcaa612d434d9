"""Several processes: a supervisor, frontends that speak HTTP, and one that runs the engine."""
