"""Image bytes to uint8 RGB in the size that a model wants, with every bound checked before pixels are decoded."""
