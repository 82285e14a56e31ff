"""Graph to graph rewrites, one file a family."""
