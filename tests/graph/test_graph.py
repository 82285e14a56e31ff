"""The folded graph: totals, sharing, rewriting, and the graphs of whole models."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import linears

from effsim.architectures.build import Step, build_graph
from effsim.graph.graph import Graph, Item, Node, Repeat
from effsim.graph.operators.attention import Attention
from effsim.graph.operators.embedding import Embedding
from effsim.graph.operators.linear import Linear
from effsim.program.source import load_model
from effsim.spec.catalogue import names


@st.composite
def graphs(draw: st.DrawFn, depth: int = 2) -> Graph:
    """Nested repeats of linear layers; names are distinct among siblings."""

    def items(level: int) -> tuple[Item, ...]:
        out: list[Item] = []
        for index in range(draw(st.integers(1, 3))):
            if level and draw(st.booleans()):
                out.append(Repeat(f"r{index}", items(level - 1), draw(st.integers(1, 4))))
            else:
                out.append(Node(f"n{index}", draw(linears())))
        return tuple(out)

    return Graph("g", items(depth))


TOTALS = ("flops", "bytes_moved", "parameters", "weight_bytes", "cache_bytes", "state_bytes")


@given(graphs())
def test_folded_and_unfolded_totals_are_equal(graph: Graph) -> None:
    flat = graph.unfold()
    for name in TOTALS:
        assert getattr(flat, name) == pytest.approx(getattr(graph, name), rel=1e-12)
    assert all(count == 1 for _, _, count in flat.walk())
    assert len(list(flat.walk())) == sum(count for _, _, count in graph.walk())
    unique = [name for name, _, _ in flat.walk()]
    assert len(set(unique)) == len(unique)


@given(graphs())
def test_map_reaches_every_node_once_and_keeps_the_folds(graph: Graph) -> None:
    seen: list[Node] = []

    def twice(node: Node) -> tuple[Item, ...]:
        seen.append(node)
        return (node, node)

    doubled = graph.map(twice)
    assert len(seen) == len(list(graph.walk()))
    assert doubled.flops == pytest.approx(2 * graph.flops)
    assert graph.map(lambda node: (node,)) == graph
    assert graph.map(lambda node: ()).flops == 0


def test_shared_weights_count_once_but_run_every_time() -> None:
    table = Node("embedding", Embedding(3, 100, 8), share="table")
    head = Node("head", Linear(3, 100, 8), share="table")
    block = Node("block", Linear(3, 8, 8), share="block")
    graph = Graph("g", (table, Repeat("layers", (block,), 5), head))
    assert graph.parameters == 100 * 8 + 8 * 8
    assert graph.weight_bytes == 2 * graph.parameters
    assert graph.flops == 5 * block.op.flops + head.op.flops
    assert graph.unfold().parameters == graph.parameters


def test_caches_count_every_layer() -> None:
    op = Attention("generation", 2, 1, 100, 8, 2, 16)
    graph = Graph("g", (Repeat("layers", (Node("attention", op),), 7),))
    assert graph.cache_bytes == 7 * 2 * 2 * 100 * 2 * 16 * 2


@pytest.mark.parametrize("phase", ["context", "generation", "training"])
@pytest.mark.parametrize("model", names("architectures"))
def test_node_names_of_every_model_are_distinct(model: str, phase: str) -> None:
    # The event reading and every table tell operators apart by their names.
    spec = load_model(model)
    if spec.encoder and phase == "generation":
        pytest.skip("an encoder generates no tokens")
    length = spec.patches.tokens if spec.patches is not None else 8
    step = Step(phase, 1, 1 if phase == "generation" else length, length)
    found = [name for name, _, _ in build_graph(spec, step).walk()]
    assert len(set(found)) == len(found)
