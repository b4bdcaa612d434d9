"""Image bytes to uint8 RGB 224x224, with every bound checked before pixels are decoded."""
