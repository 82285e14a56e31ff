"""Catalogue of hardware descriptions (YAML data only)."""
