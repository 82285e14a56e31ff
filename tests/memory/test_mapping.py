"""Addresses, mappings and traces."""

import numpy as np
import pytest

from effsim.errors import SpecError, UnknownNameError
from effsim.memory.layout import O_BANKS
from effsim.memory.mapping import NAMED, check_mapping, locate
from effsim.memory.preset import catalogue, load_preset
from effsim.memory.traces import KINDS, make_trace, splitmix64

ORDERS = [*NAMED, "rochrababgco", "rorabgbachco", "chrorabgbaco"]


@pytest.mark.parametrize("preset", catalogue())
@pytest.mark.parametrize("mapping", ORDERS)
def test_no_two_accesses_share_a_place(preset, mapping):
    """The column is not kept, so as many accesses fall on a bank's row as the row holds."""
    part = load_preset(preset)
    o = part.spec.organization
    n = part.buses * part.units_per_bus * part.banks_per_unit * int(o.columns) * 2
    where = locate(part, mapping, np.arange(n, dtype=np.int64) * part.access_bytes)
    _, counts = np.unique(np.stack([where.bank, where.row]), axis=1, return_counts=True)
    assert counts.max() <= o.columns
    assert where.bank.max() < part.settings[O_BANKS]
    assert where.row.max() < o.rows


def test_an_order_names_fields_from_the_highest_bits():
    """DDR4: 128 columns, 4 groups, 4 banks, 2 ranks; 64-byte accesses."""
    part = load_preset("ddr4")
    where = locate(
        part, "rochrababgco", np.array([0, 64 * 128, 64 * 128 * 4, 64 * 128 * 16, 64 * 128 * 32], dtype=np.int64)
    )
    assert where.bank.tolist() == [0, 4, 1, 16, 0]
    assert where.row.tolist() == [0, 0, 0, 0, 1]


def test_mop_spreads_four_columns_by_their_own_bits():
    """DDR4: the rank bit is XORed with the lowest column bit, the group with the two above it; banks count by 16 and 4."""
    where = locate(load_preset("ddr4"), "MOP4CLXOR", np.arange(5, dtype=np.int64) * 64)
    assert where.bank.tolist() == [0, 16, 4, 20, 16]
    assert where.row.tolist() == [0] * 5


@pytest.mark.parametrize("stride", [1 << k for k in range(8, 23)])
def test_no_power_of_two_stride_stays_in_a_few_banks(stride):
    part = load_preset("hbm2")
    where = locate(part, "hashed", np.arange(1024, dtype=np.int64) * stride)
    assert len(set(where.bank)) > 100


@pytest.mark.parametrize("bad", ["", "hash", "rochrababg", "rorochbabgco", "x" * 1000])
def test_unknown_mappings_are_refused(bad):
    with pytest.raises(UnknownNameError, match="no address mapping"):
        check_mapping(bad)


def test_mapping_names_are_found_whatever_their_case():
    assert [check_mapping(name) for name in ("robaracoch", "mop4clxor", "ROCHRABABGCO")] == [
        "RoBaRaCoCh",
        "MOP4CLXOR",
        "rochrababgco",
    ]


def test_splitmix_is_the_published_one():
    """First output of the generator seeded with 0, and with 1."""
    assert [hex(x) for x in splitmix64(np.array([0, 1]))] == ["0xe220a8397b1dcdaf", "0x910a2dec89025cc1"]


def test_traces_are_what_they_say():
    kinds = {kind: make_trace(kind, 9, 64, stride=4096) for kind in KINDS}
    assert kinds["seq_read"].address.tolist() == [64 * i for i in range(9)]
    assert kinds["seq_write"].write.tolist() == [1] * 9
    assert kinds["mixed_2r1w"].write.tolist() == [0, 0, 1] * 3
    assert kinds["triad"].address.tolist()[:4] == [0, 256 << 20, 512 << 20, 64]
    assert kinds["stride"].address.tolist()[:3] == [0, 4096, 8192]
    assert kinds["chase"].outstanding == 1
    assert (kinds["chase"].address == kinds["random_read"].address).all()
    per_pass = (256 << 20) // (64 << 20)
    assert make_trace("stride", per_pass + 1, 64, stride=64 << 20).address[-1] == 64


@pytest.mark.parametrize("stride", [0, -1, 1 << 40])
def test_senseless_strides_are_refused(stride):
    with pytest.raises(SpecError, match="stride"):
        make_trace("stride", 10, 64, stride=stride)
