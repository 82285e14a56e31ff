"""Shared by all tests: makes ``strategies`` importable, and hypothesis repeatable."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "effsim",
    deadline=None,
    derandomize=True,
    max_examples=30,
    # How much a test filters depends on which modules were imported: hypothesis tries the constants it finds in them.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.load_profile("effsim")
