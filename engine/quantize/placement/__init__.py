"""Where eight bits go: which values are stored in them, which biases are corrected, which weights are narrower."""
