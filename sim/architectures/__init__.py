"""Model configuration to graph."""
