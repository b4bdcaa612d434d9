"""Accuracy of a model's variants over labelled photos: who is right, who agrees, how far the logits are apart."""
