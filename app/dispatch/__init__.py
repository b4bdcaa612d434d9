"""Where images run: in this process, or in an engine process of its own behind the same interface."""
