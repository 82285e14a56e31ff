"""Catalogue of workloads, architectures and engine profiles (YAML data only)."""
