"""The models that Tessera serves: what they are, where they lie, and how their variants are built.

A model is a folder. Either it has a `model.toml`, or it holds one `*.onnx` or `*.onnx.gz` and a `labels.txt`. Begin
with `tessera.models.registry.open_model`. Nothing is imported here: processes that only decode photos load no engine.
"""
