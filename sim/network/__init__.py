"""Topologies and collectives."""
