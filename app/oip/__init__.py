"""What the Open Inference Protocol means on this service: names of models, checks of tensors. Shared by HTTP and gRPC."""
