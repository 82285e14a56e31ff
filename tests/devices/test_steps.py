"""Steps do the work that their operator states: no product forgotten, no tensor moved less than once."""

from __future__ import annotations

import pytest
from hypothesis import given
from strategies import operators

from effsim.devices.steps import AttentionStep, ProductStep, Step, SweepStep, steps_of
from effsim.errors import UnsupportedError
from effsim.graph.operator import Operator, Role
from effsim.graph.operators.linear import Linear
from effsim.graph.operators.moe import Experts
from effsim.graph.operators.scan import GatedDelta, SSDScan


def matrix_flops(steps: tuple[Step, ...]) -> float:
    total = 0.0
    for step in steps:
        if isinstance(step, ProductStep):
            total += step.flops * step.repeat
        elif isinstance(step, AttentionStep):
            total += step.op.arithmetic().matrix
    return total


def persistent_bytes(steps: tuple[Step, ...]) -> float:
    total = 0.0
    for step in steps:
        if isinstance(step, ProductStep):
            total += (step.b_bytes if step.b_persistent else 0.0) + (step.c_bytes if step.c_persistent else 0.0)
        elif isinstance(step, SweepStep):
            total += step.persistent_bytes
    return total


@given(op=operators())
def test_products_cover_the_operators_own_count(op: Operator) -> None:
    steps = steps_of(op, True, "test")
    # Rounded expert loads and padded chunks may add work; an unfused mask is computed whole.
    assert matrix_flops(steps) >= op.arithmetic().matrix * (1 - 1e-9)


@given(op=operators())
def test_weights_come_from_memory(op: Operator) -> None:
    if isinstance(op, Experts):  # whole experts are rounded
        return
    weights = op.bytes_by_role().get(Role.WEIGHT, 0.0)
    steps = steps_of(op, True, "test")
    if isinstance(op, SSDScan | GatedDelta) and not op.recurrent:
        return  # their few per-head scalars are not worth a step
    assert persistent_bytes(steps) >= weights * (1 - 1e-9)


@pytest.mark.parametrize(
    "op",
    [SSDScan(2, 1024, 8, 64, 128, 2, 256), GatedDelta(2, 512, 8, 128, 64, 64), Linear(5, 6, 7)],
    ids=lambda o: o.kind,
)
def test_whole_chunks_are_counted_exactly(op: Operator) -> None:
    assert matrix_flops(steps_of(op, True, "test")) == pytest.approx(op.arithmetic().matrix)


class Odd:
    """No operator that any device knows."""

    kind = "odd"


def test_an_unknown_operator_names_the_device() -> None:
    with pytest.raises(UnsupportedError, match="test: no kernels for operator 'odd'"):
        steps_of(Odd(), True, "test")  # type: ignore[arg-type]
