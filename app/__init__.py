"""The HTTP service: it knows engines only through `tessera.engine.Session` and models through `tessera.models`."""
