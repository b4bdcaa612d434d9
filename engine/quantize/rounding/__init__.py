"""Real numbers as eight-bit integers, and how large the error is."""
