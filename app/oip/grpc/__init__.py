"""The Open Inference Protocol v2 over gRPC, on the same service as the HTTP routes. Needs the extra `grpc`."""
