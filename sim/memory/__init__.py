"""Device memory models."""
