"""ONNX files as a small graph: reading, shape inference, passes, and a numpy reference to check them against.

`reader.read_model` turns a file into an `ir.Graph`, `passes.lower` rewrites it to the few operators that backends run,
and `reference.run_reference` executes either form in plain numpy.
"""
