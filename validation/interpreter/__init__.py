"""Graphs executed node by node with the functional models, and compared with PyTorch modules."""
