"""Parameters, FLOPs and saved activations of graphs against what PyTorch counts."""
