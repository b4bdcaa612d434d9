"""A CANN operator package: 3x3 convolution, bias and ReLU as one operator. See README.md."""
