"""CUDA memory that this client and a server on the same GPU both see: the driver below, slices of regions, tensors."""
