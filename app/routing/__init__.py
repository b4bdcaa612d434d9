"""Which variant answers a request."""
