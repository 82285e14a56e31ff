"""``effsim dram``, presets, stream efficiency and the comparison with other simulators."""

import json

import pytest
from typer.testing import CliRunner

from effsim.cli.app import app
from effsim.errors import EffsimError, SpecError
from effsim.memory.preset import catalogue, load_preset
from effsim.memory.stream import stream_efficiency
from effsim.validation.dram import compare_dram, print_table, table

KEYS = {
    "cycles", "time_s", "bandwidth_bytes_per_s", "peak_bytes_per_s", "fraction", "row_hit_rate", "read_latency_s", "energy_j",
    "limiters",
}  # fmt: skip
PEAKS = {
    "ddr4": 25.6e9, "ddr5": 19.23e9, "lpddr4": 19.28e9, "lpddr5": 12.8e9, "gddr6": 56.1e9, "hbm2": 256e9,
    "hbm2_dramsim3": 256e9, "hbm2e": 409.6e9, "hbm3": 819.2e9, "hbm3e": 1177e9, "hbm4": 2048e9,
}  # fmt: skip


def call(*arguments):
    return CliRunner().invoke(app, ["dram", *arguments])


def test_json_has_the_keys_of_the_interface():
    answer = json.loads(call("ddr4", "--trace", "random_read", "--bytes", "64 KiB", "--json").stdout)
    assert answer.keys() >= KEYS
    assert answer["fraction"] == pytest.approx(answer["bandwidth_bytes_per_s"] / answer["peak_bytes_per_s"])


def test_people_are_told_why():
    shown = call("hbm2", "--bytes", "64KiB", "--mapping", "RoBaRaCoCh").stdout
    assert "tCCD_L" in shown
    assert "256 GB/s" in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["hbm22"], "hbm2"),
        (["hbm2", "--trace", "sequential"], "no trace kind"),
        (["hbm2", "--trace", "stride"], "--stride"),
        (["hbm2", "--stride", "4KiB"], "--trace stride"),
        (["hbm2", "--bytes", "3 parsec"], "parsec"),
        (["hbm2", "--bytes", "0"], "one byte or more"),
        (["hbm2", "--mapping", "random"], "no address mapping"),
        (["hbm2", "--channels", "3"], "power of two"),
        (["hbm2", "--refresh", "sometimes"], "on, off"),
        (["ddr4", "--refresh", "per_bank"], "per-bank"),
        (["hbm2", "--page", "half"], "open or closed"),
    ],
)
def test_bad_input_is_refused(arguments, says):
    result = call(*arguments)
    assert isinstance(result.exception, EffsimError)
    assert result.exception.exit_code == 2
    assert says in str(result.exception)


@pytest.mark.parametrize(("name", "peak"), PEAKS.items())
def test_peaks_are_those_of_the_standard(name, peak):
    assert load_preset(name).peak_bytes_per_s == pytest.approx(peak, rel=2e-3)


@pytest.mark.parametrize("name", catalogue())
def test_every_number_says_where_it_is_from(name):
    spec = load_preset(name).spec
    for section in (spec.organization, spec.timing, spec.controller):
        for field in type(section).model_fields:
            value = getattr(section, field)
            if hasattr(value, "source"):
                assert value.source, field


def test_a_preset_of_ones_own(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("extends: ddr4\nkind: dram\ntiming: {cl: 30}\n")
    assert load_preset(str(file)).spec.timing.cl == 30
    file.write_text("extends: ddr4\nkind: dram\norganization: {banks: 3}\n")
    with pytest.raises(SpecError, match=r"mine\.yaml.*power of two"):
        load_preset(str(file))


def test_streams_beat_strides_beat_gathers():
    read = stream_efficiency("hbm2e", "read")
    assert 0.8 < read < 1
    assert stream_efficiency("hbm2e", "triad") < read
    assert stream_efficiency("hbm2e", "gather", granule=4) < stream_efficiency("hbm2e", "gather", granule=32)
    assert (
        stream_efficiency("hbm2e", "gather", granule=32)
        < stream_efficiency("hbm2e", "gather", granule=1024)
        <= read + 0.05
    )


@pytest.mark.parametrize(("pattern", "options"), [("gathers", {}), ("gather", {}), ("stride", {})])
def test_patterns_that_make_no_sense(pattern, options):
    with pytest.raises(SpecError):
        stream_efficiency("hbm2e", pattern, **options)


REFERENCE = """\
sim,commit,preset,mapping,channels,trace_kind,bytes_total,stride_B,max_outstanding,refresh,row_policy,cycles,time_ns,row_hit_rate
DRAMsim3,29817593,HBM2_8Gb_x128,rorabgbachco,8,seq_read,1048576,0,unlimited,on,OPEN_PAGE,4465,4465.0,0.9682
DRAMsim3,29817593,DDR4_8Gb_x8_3200,rochrababgco,1,stride_read,1048576,256,unlimited,on,OPEN_PAGE,65857,41489.9,0.9681
Ramulator2.1,c5b1c3a4,DDR4_8Gb_x8/DDR4_3200AA,MOP4CLXOR,1,chase_read,131072,0,1,on,Open,143784,89865.0,0.0005
Ramulator2.1,c5b1c3a4,HBM2_8Gb/HBM2_2000Mbps,RoBaRaCoCh,8,seq_read,1048576,0,unlimited,on,Open,7809,7809.0,0.968
Other,1,Something,RoBaRaCoCh,8,seq_read,1048576,0,unlimited,on,Open,7809,7809.0,0.968
"""


def test_cycle_level_simulators_are_matched(tmp_path, capsys):
    """Rows that DRAMsim3 and Ramulator 2.1 gave."""
    (tmp_path / "dram_reference.csv").write_text(REFERENCE)
    rows = compare_dram(tmp_path)
    assert len(rows) == 4
    assert max(abs(row.error) for row in rows) < 0.01
    assert max(abs(row.hit_error) for row in rows) < 0.01
    assert table(rows)[-1].n == 4
    print_table(tmp_path)
    assert "chase" in capsys.readouterr().out


def test_nothing_to_compare_with(tmp_path):
    assert table(compare_dram(tmp_path)) == []
