"""Loads that would take all memory or never end are refused before they start."""

from __future__ import annotations

import pytest

import effsim
from effsim.errors import SpecError
from effsim.spec.serving import MOST_REQUESTS, ArrivalsSpec
from effsim.spec.serving_fleet import FailuresSpec


@pytest.mark.parametrize("assignment", ["arrivals.requests=1e12", "arrivals.duration=1e12 s", "failures={mtbf: 1 us}"])
def test_a_load_beyond_bounds_is_refused(assignment: str) -> None:
    with pytest.raises(SpecError, match=r"expected at (most 10,000,000|least 0\.1 s)"):
        effsim.serve("gpu_h100", "llama3_8b_vllm", set=[f"workload.serving.{assignment}"])


def test_the_smaller_of_number_and_duration_counts() -> None:
    spec = ArrivalsSpec.model_validate({"requests": 10, "duration": "1e12 s"})
    assert spec.requests == 10
    assert ArrivalsSpec.model_validate({"requests": MOST_REQUESTS}).requests == MOST_REQUESTS
    assert FailuresSpec.model_validate({"mtbf": "0.1 s"}).mtbf == 0.1
