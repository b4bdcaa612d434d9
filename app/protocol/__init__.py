"""Wire formats as pure functions; nothing here knows the web framework."""
