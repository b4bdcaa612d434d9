"""What the Open Inference Protocol means here: names of models, checks of tensors. Shared by HTTP and gRPC."""
