"""An interpreter of graphs: every node computes with the functional models, in the order of the graph.

What is computed follows from the operators: their dimensions must be those of the arrays that reach them, the weights
must have the shapes that they state, the caches and states the sizes that they report, and the multiply-adds that ran
must be the FLOPs that they count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from effsim.architectures.build import Step, build_graph
from effsim.errors import DataError, UnsupportedError
from effsim.graph.graph import Graph, Item, Node, Repeat
from effsim.graph.operators import Embedding, Experts, Pointwise, Sampling
from effsim.models import sampling
from effsim.spec.architecture import ArchitectureSpec

from . import dense, recurrent, traffic
from .call import Call, Constants
from .values import Array, Values

Weights = Mapping[str, Mapping[str, Any]]
"""Arrays of every node, by its unfolded name (``layers.3.qkv_proj``) and by what they are (``weight``, ``bias``)."""


@dataclass(frozen=True, slots=True)
class Executed:
    """One node that ran: the FLOPs counted while it ran, and those that its operator states."""

    path: str
    counted: float
    stated: float


def _sample(call: Call) -> Array:
    """The most probable token of every row."""
    op, (logits,) = call.op, call.inputs
    assert isinstance(op, Sampling)
    call.expect("shape of the logits", logits.shape, (op.rows, op.vocabulary))
    call.operations += logits.size * (6.0 + 1.0)
    drawn: Array = np.argmax(sampling.softmax(logits), axis=1).astype(np.float32)
    return drawn[:, None]


_KINDS: dict[str, Callable[[Call], Array]] = {
    "embedding": dense.run_embedding,
    "linear": dense.run_linear,
    "batched_matmul": dense.run_batched,
    "kv_append": dense.run_append,
    "attention": dense.run_attention,
    "latent_attention": dense.run_attention,
    "moe_router": dense.run_top_k,
    "moe": dense.run_experts,
    "conv1d": recurrent.run_conv1d,
    "selective_scan": recurrent.run_selective,
    "ssd_scan": recurrent.run_ssd,
    "gated_delta": recurrent.run_delta,
    "sampling": _sample,
}

UNCOUNTED = ("gated_delta",)
"""Operators whose functional model multiplies in another form than they count: their FLOPs are not compared."""


class Interpreter:
    """Runs graphs of one model step after step; caches and states stay between the steps."""

    def __init__(self, weights: Weights, constants: Constants, batch: int) -> None:
        self.weights, self.constants, self.batch = weights, constants, batch
        self.states: dict[str, dict[str, Any]] = {}
        self.executed: list[Executed] = []
        self.used: set[str] = set()

    def run(self, graph: Graph, tokens: npt.ArrayLike, first: int = 0) -> Values:
        """Execute *graph* on *tokens* [batch, length], which stand at the positions from *first* on.

        Raises:
            DataError: the graph and the arrays disagree; the message names the node and the dimension.
            UnsupportedError: an operator that has no functional model, or a graph without data flow.
        """
        ids = np.asarray(tokens)
        self.executed = []
        values = Values(self.batch)
        places = np.broadcast_to(first + np.arange(ids.shape[1]), ids.shape)
        values.put("tokens", ids.reshape(-1, 1).astype(np.float32))
        values.put("positions", places.reshape(-1, 1).astype(np.float32))
        self._items(graph.items, "", values)
        self._resident(graph)
        return values

    def _resident(self, graph: Graph) -> None:
        """Caches and states that stay take the bytes that the graph counts."""
        kept = [array for states in self.states.values() for array in (states.get("cache"), *_recurrent(states))]
        size = sum(4.0 * array.size for array in kept if array is not None)
        if size != graph.cache_bytes + graph.state_bytes:
            counted = f"{graph.cache_bytes:.17g} B of caches and {graph.state_bytes:.17g} B of states"
            raise DataError(f"{size:.17g} B stay after the step; the graph counts {counted}")

    @property
    def flops(self) -> float:
        """FLOPs counted in the last run."""
        return sum(done.counted for done in self.executed)

    def _items(self, items: tuple[Item, ...], prefix: str, values: Values) -> None:
        for item in items:
            if isinstance(item, Repeat):
                for index in range(item.count):
                    self._items(item.body, f"{prefix}{item.name}.{index}.", values)
            else:
                self._node(item, prefix, values)

    def _node(self, node: Node, prefix: str, values: Values) -> None:
        path = prefix + node.name
        run = dense.run_pointwise if isinstance(node.op, Pointwise) else _KINDS.get(node.op.kind)
        if run is None:
            raise UnsupportedError(f"{path}: no functional model executes {node.op.kind}")
        if not node.outputs:
            raise UnsupportedError(f"{path}: the graph does not record what it reads and writes")
        inputs = [values.read(value) for value in node.inputs]
        own = self.weights.get(path, {})
        self.used.add(path)
        states = self.states.setdefault(prefix + _owner(node), {})
        call = Call(path, node, inputs, own, self.constants, states, self.batch)
        result = run(call)
        traffic.check(call, result)
        self._count(call, result, values)
        if not isinstance(node.op, Embedding):
            held = sum(np.asarray(array).size for array in own.values())
            call.expect("weights", held, node.op.parameters if own else held)

    def _count(self, call: Call, result: Array, values: Values) -> None:
        values.store(call.node, result)
        op = call.op
        counted = 2.0 * call.multiply_adds if call.multiply_adds else call.operations
        if op.kind in UNCOUNTED:
            counted = op.flops
        # Routed experts sum probabilities, which rounds; everything else counts in whole numbers.
        if not math.isclose(counted, op.flops, rel_tol=1e-12 if isinstance(op, Experts) else 0.0):
            raise DataError(f"{call.path}: {counted:.17g} FLOPs ran; the operator counts {op.flops:.17g}")
        self.executed.append(Executed(call.path, counted, op.flops))


def _recurrent(states: dict[str, Any]) -> list[Any]:
    return [states.get("conv"), states.get("scan")]


def _owner(node: Node) -> str:
    """Attention and its cache append share states; every other node has its own."""
    if node.op.kind in ("attention", "latent_attention", "kv_append"):
        return node.name.removesuffix("kv_append").removesuffix("attention") + "cache"
    return node.name


class Session:
    """A model that reads a prompt and then token after token; every step's graph is built by the architecture."""

    def __init__(
        self,
        spec: ArchitectureSpec,
        weights: Weights,
        constants: Constants,
        batch: int,
        stored: tuple[str, int] = ("", 0),
    ) -> None:
        """*stored*: type and group size of the projections' weights, where they are narrower than float32."""
        self.spec, self.stored = spec, stored
        self.interpreter = Interpreter(weights, constants, batch)
        self.length = 0
        self.flops_run = self.flops_graph = 0.0

    def step(self, tokens: npt.ArrayLike, phase: str) -> npt.NDArray[np.float32]:
        """Logits of all new tokens, [batch, length, vocabulary]."""
        ids = np.asarray(tokens)
        batch, new = ids.shape
        total = self.length + new
        what = Step(phase, batch, new, total, "fp32", *self.stored, logit_tokens=new, sampling=False)
        graph = build_graph(self.spec, what)
        values = self.interpreter.run(graph, ids, self.length)
        self.length = total
        self.flops_run += self.interpreter.flops
        self.flops_graph += graph.flops
        return values.get("logits").reshape(batch, new, -1)
