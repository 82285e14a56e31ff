"""Systolic arrays: folds of a PE grid, scratchpads, DRAM ports and a vector unit."""
