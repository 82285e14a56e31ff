"""Sensitivity and sweeps."""
