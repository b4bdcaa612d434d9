"""The Open Inference Protocol v2 on the wire, pure: bytes to requests, results to bytes, no HTTP framework.

Sources: the protocol's specification (kserve/open-inference-protocol, inference_rest.md) and Triton's extensions for
binary tensors, classification, statistics, model configuration and repository (triton-inference-server/server,
docs/protocol/extension_*.md).
"""
