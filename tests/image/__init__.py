"""The image, built and run as a container without a daemon or a registry: `make image-check`."""
