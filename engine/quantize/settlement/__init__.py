"""What is decided by its measured effect: ranges, biases, layers kept in floating point, scales of channels."""
