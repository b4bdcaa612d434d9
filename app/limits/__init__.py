"""What one client, or all of them together, may take of the service. Pure code, clocks injected."""
