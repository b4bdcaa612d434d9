"""Measured figures as documents: what commands write, reports show and the service keeps for its page."""
