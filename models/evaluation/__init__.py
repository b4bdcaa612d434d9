"""Accuracy of a model's variants over labelled photos: which are right, which agree, how far the logits are apart."""
