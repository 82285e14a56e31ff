"""What a DRAM file may not say."""

from __future__ import annotations

from pathlib import Path

import pytest

from effsim.errors import SpecError
from effsim.memory.preset import catalogue, load_preset
from effsim.memory.simulate import simulate_dram

TEXT = """extends: hbm2
kind: dram
refresh: {{mode: per_bank, staggered: false}}
timing: {{refi: 400, rrefd: {apart}}}
"""


def test_banks_that_cannot_be_refreshed_in_time_are_refused(tmp_path: Path) -> None:
    """16 banks, 25 clocks apart, are round in 400 clocks; 26 apart they are not, and refreshes would pile up."""
    path = tmp_path / "often.yaml"
    path.write_text(TEXT.format(apart=26))
    with pytest.raises(SpecError, match=r"too short for per-bank refresh: 16 banks.* 416 clocks"):
        load_preset(str(path))
    path.write_text(TEXT.format(apart=25))
    result = simulate_dram(load_preset(str(path)), trace="random_read", bytes_moved=1 << 16)
    assert 0.0 < result.fraction < 1.0


@pytest.mark.parametrize("name", catalogue())
def test_every_preset_can_refresh_bank_by_bank_where_it_has_the_delay(name: str) -> None:
    spec = load_preset(name).spec
    if spec.timing.rfc_bank is None:
        pytest.skip("no delay of a per-bank refresh")
    assert spec.timing.refi >= load_preset(name).banks_per_unit * int(spec.organization.stacks) * spec.timing.rrefd
