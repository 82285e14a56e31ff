"""Shared by all tests: makes ``strategies`` importable, and hypothesis repeatable."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "effsim",
    deadline=None,
    derandomize=True,
    max_examples=30,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("effsim")
