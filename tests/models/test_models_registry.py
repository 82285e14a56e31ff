"""Every kind of operator that the graph knows has a functional model, or a reason why it has none."""

from __future__ import annotations

import inspect

import pytest

import effsim.graph.operators.attention
import effsim.graph.operators.convolution
import effsim.graph.operators.embedding
import effsim.graph.operators.moe
import effsim.graph.operators.placement
import effsim.graph.operators.pointwise
import effsim.graph.operators.scan  # noqa: F401 - every operator class must be known
from effsim.graph.operator import Operator
from effsim.graph.operators.communication import COLLECTIVES
from effsim.graph.operators.linear import Linear
from effsim.graph.operators.pointwise import RECIPES, Pointwise
from effsim.models import pointwise, pointwise_backward, registry

BY_FORWARD = {"scan_backward", "pointwise_backward"}


def subclasses(base: type) -> set[type]:
    return {base, *(found for child in base.__subclasses__() for found in subclasses(child))}


def kinds() -> set[str]:
    """Kinds of all operator classes of effsim; those of element-wise operators and wrappers are properties."""
    own = {c for c in subclasses(Operator) if c.__module__.startswith("effsim.") and not inspect.isabstract(c)}
    return {c.kind for c in own if isinstance(c.kind, str)}


def test_every_kind_has_a_model_or_a_reason() -> None:
    named = set(registry.MODELS) | set(registry.WITHOUT_MODEL) | BY_FORWARD
    assert len(kinds()) > 20
    assert kinds() == named
    assert not set(registry.MODELS) & set(registry.WITHOUT_MODEL)
    assert all(reason for reason in registry.WITHOUT_MODEL.values())


def test_every_element_wise_kind_has_a_model_and_a_gradient() -> None:
    assert set(pointwise.FORWARD) == set(RECIPES)
    assert set(pointwise_backward.BACKWARD) == set(RECIPES)
    for kind in RECIPES:
        assert callable(registry.models_of(Pointwise(kind, 1, 4).kind)[0])
        assert callable(registry.models_of("pointwise_backward", kind)[0])


def test_every_scan_that_names_its_backward_has_a_gradient() -> None:
    from effsim.graph.operators import CausalConv1d, FFTConv, GatedDelta, SelectiveScan, SSDScan

    scans = (
        CausalConv1d(1, 4, 2), FFTConv(1, 4, 2), GatedDelta(1, 4, 1, 2, 2), SelectiveScan(1, 4, 2, 2),
        SSDScan(1, 4, 1, 2, 2),
    )  # fmt: skip
    found = {op.kind for op in scans if op.backward()[0].kind == "scan_backward"}
    assert found == set(registry.SCAN_BACKWARD)
    for kind in found:
        assert callable(registry.models_of("scan_backward", kind)[0])


def test_every_collective_is_there() -> None:
    names = {name.rpartition(".")[2].removeprefix("ring_") for name in registry.MODELS["collective"]}
    assert names == set(COLLECTIVES)


@pytest.mark.parametrize("kind", sorted(registry.MODELS))
def test_names_resolve(kind: str) -> None:
    assert all(callable(model) for model in registry.models_of(kind))


def test_names_beyond_the_graph_resolve() -> None:
    assert all(callable(registry.resolve(name)) for name in registry.BEYOND_THE_GRAPH)


def test_unknown_kinds_are_refused() -> None:
    assert registry.models_of("host_transfer") == ()
    assert registry.models_of(Linear.kind)
    with pytest.raises(KeyError):
        registry.models_of("no_such_kind")
