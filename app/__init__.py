"""The HTTP service: it knows engines only through `engine.Session` and models only through `models.registry`."""
