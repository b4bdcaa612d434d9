"""ONNX files as a small graph: reading, writing, shape inference, passes, and a numpy reference to check them against.

`reader.read_model` turns a file into an `ir.Graph`, and `writer.to_onnx` turns it into a model again. `passes.lower`
rewrites it to the few operators that backends run. `reference.run_reference` executes either form in plain numpy.
"""
