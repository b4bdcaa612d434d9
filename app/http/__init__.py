"""The HTTP server: connections, exchanges, signals."""
