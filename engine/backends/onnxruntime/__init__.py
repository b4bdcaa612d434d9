"""ONNX Runtime: the baseline, and what runs graphs that our own engine does not take."""
