"""What is served: described without the engine, and loaded from the settings."""
