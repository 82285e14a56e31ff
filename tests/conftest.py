"""Shared by all tests: makes ``strategies`` importable, and hypothesis repeatable."""

from __future__ import annotations

import contextlib

from hypothesis import HealthCheck, settings

with contextlib.suppress(ImportError):
    # Hypothesis also tries constants of the modules that happen to be imported: which tests ran before in the same
    # process would decide what a test draws. Without them a test that passes alone passes everywhere.
    from hypothesis.internal.conjecture import providers

    providers.is_local_module_file = lambda _: False

settings.register_profile(
    "effsim",
    deadline=None,
    derandomize=True,
    max_examples=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.load_profile("effsim")
