"""Files that other tools write, read as data: PyTorch's, safetensors, and Triton's folders. Nothing in them is run.

`foreign` tells what lies at a path. Nothing here knows model folders.
"""
