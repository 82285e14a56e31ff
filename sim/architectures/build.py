"""Model description × step → folded graph.

Layers keep the structure they are written in: a run of N identical layers is one ``Repeat``, so that the cost of a
graph grows with the number of *different* layers; runs of equal layers at several places are built once. The graph of a
step is built anew for every step; nothing is kept between calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..graph.graph import Graph, Item, Node, Repeat, Value
from ..spec.architecture import (
    ArchitectureSpec,
    Attention,
    GatedDelta,
    LatentAttention,
    LayerRun,
    Mamba,
    Mamba2,
    Mlp,
    Moe,
    ParallelMixers,
)
from . import ends
from .attention import attention, latent_attention
from .feedforward import mlp, moe
from .ssm import gated_delta, mamba, mamba2
from .step import Scope, Step

__all__ = ["Step", "build_graph", "layer_parameters", "parameter_count"]


def build_graph(spec: ArchitectureSpec, step: Step) -> Graph:
    """The graph of one *step* of the model.

    Node names are ``embedding``, ``layers.<operator>`` (``layers_0.…``, ``layers_1.…`` where runs differ),
    ``final_norm``, ``lm_head``, ``sampling`` or ``cross_entropy``; a run's own name replaces ``layers``.

    Raises:
        UnsupportedError: a dimension that an operator refuses.
    """
    runs = _runs(spec, step, spec.layers, "layers", [])
    return Graph(spec.name, (*ends.head(spec, step), *runs, *ends.tail(spec, step)))


def parameter_count(spec: ArchitectureSpec) -> int:
    """Exact number of trainable parameters, shared ones once."""
    return build_graph(spec, Step("generation", 1, 1, 1)).parameters


def layer_parameters(spec: ArchitectureSpec) -> int:
    """Parameters of the layers alone: without embeddings, final norm and output head; shared blocks once."""
    return Graph(spec.name, _runs(spec, Step("generation", 1, 1, 1), spec.layers, "layers", [])).parameters


_Built = list[tuple[LayerRun, tuple[Item, ...]]]
"""Layers that one call has built already, so that equal ones share their nodes."""


def _runs(spec: ArchitectureSpec, step: Step, runs: list[LayerRun], default: str, built: _Built) -> tuple[Item, ...]:
    items = []
    for index, run in enumerate(runs):
        name = run.name or (default if len(runs) == 1 else f"{default}_{index}")
        if run.layers is None:
            body = _built_layer(spec, step, run, built)
        else:
            body = _runs(spec, step, run.layers, "part", built)
        items.append(Repeat(name, body, run.repeat))
    return tuple(items)


def _built_layer(spec: ArchitectureSpec, step: Step, run: LayerRun, built: _Built) -> tuple[Item, ...]:
    for other, nodes in built:
        if other.mixer == run.mixer and other.ffn == run.ffn and other.shared == run.shared:
            return nodes
    made = tuple(_layer(spec, step, run))
    built.append((run, made))
    return made


def _layer(spec: ArchitectureSpec, step: Step, run: LayerRun) -> list[Node]:
    shared = run.shared
    if shared is None:
        return _plain_layer(spec, Scope(step, spec.hidden), run)
    scope, own = Scope(step, spec.hidden, share=shared.name), Scope(step, spec.hidden)
    projection = [own.linear("depth_proj", own.hidden, own.hidden)] if shared.projection else []
    if not shared.concatenate_embedding:
        return [*_plain_layer(spec, scope, run), *projection]
    nodes = [
        ends.concatenate(own, "concatenate"),
        *_wide_layer(spec, scope, run),
        *projection,
        ends.residual(own, _residual_name(run.mixer), own.mixed),
    ]
    # The next layer's norm, not the residual stream, takes this result in: its data flow is not recorded.
    return [replace(node, inputs=(), outputs=()) for node in nodes]


def _plain_layer(spec: ArchitectureSpec, scope: Scope, run: LayerRun) -> list[Node]:
    if run.mixer is None:
        return _one_part(spec, scope, _feed_forward(scope, run.ffn), "mlp_residual", scope.fed)
    parts, name = _mixer(spec, scope, run.mixer), _residual_name(run.mixer)
    if run.ffn is None:
        return _one_part(spec, scope, parts, name, scope.mixed)
    return _LAYOUTS[spec.residual](spec, scope, parts, _feed_forward(scope, run.ffn), name)


def _wide_layer(spec: ArchitectureSpec, scope: Scope, run: LayerRun) -> list[Node]:
    """A layer on [hidden, embedding output] without residuals inside: norm, mixer, norm, feed-forward."""
    width = 2 * scope.hidden
    wide = Value("wide", width)
    nodes = [ends.norm(scope, "input_norm", spec.norm, width, reads=wide, writes=scope.normed(width))]
    nodes += _mixer(spec, scope, run.mixer, width) if run.mixer else []
    if run.ffn is not None:
        nodes += [_norm_of(spec, scope, "post_norm", scope.mixed, scope.normed()), *_feed_forward(scope, run.ffn)]
    return nodes


def _norm_of(spec: ArchitectureSpec, scope: Scope, name: str, reads: Value, writes: Value | None = None) -> Node:
    return ends.norm(scope, name, spec.norm, reads=reads, writes=writes or reads)


def _input_norm(spec: ArchitectureSpec, scope: Scope, name: str) -> Node:
    return _norm_of(spec, scope, name, scope.residual, scope.normed())


def _reading(nodes: list[Node], value: str) -> list[Node]:
    """The nodes of a part that reads *value* instead of the normed residual stream."""
    out = []
    for node in nodes:
        inputs = tuple(replace(v, name=value) if v.name == "normed" else v for v in node.inputs)
        out.append(replace(node, inputs=inputs))
    return out


def _one_part(spec: ArchitectureSpec, scope: Scope, part: list[Node], name: str, made: Value) -> list[Node]:
    """A layer with one part that makes *made*: one norm (two in a sandwich), one residual."""
    last = ends.residual(scope, name, made)
    if spec.residual == "post_norm":
        return [*_reading(part, "hidden"), last, _norm_of(spec, scope, "input_norm", scope.residual)]
    first = _input_norm(spec, scope, "input_norm")
    if spec.residual == "sandwich":
        return [first, *part, _norm_of(spec, scope, "output_norm", made), last]
    return [first, *part, last]


def _pre_norm(spec: ArchitectureSpec, scope: Scope, mix: list[Node], feed: list[Node], name: str) -> list[Node]:
    return [
        _input_norm(spec, scope, "input_norm"),
        *mix,
        ends.residual(scope, name, scope.mixed),
        _input_norm(spec, scope, "post_norm"),
        *feed,
        ends.residual(scope, "mlp_residual", scope.fed),
    ]


def _post_norm(spec: ArchitectureSpec, scope: Scope, mix: list[Node], feed: list[Node], name: str) -> list[Node]:
    return [
        *_reading(mix, "hidden"),
        ends.residual(scope, name, scope.mixed),
        _norm_of(spec, scope, "input_norm", scope.residual),
        *_reading(feed, "hidden"),
        ends.residual(scope, "mlp_residual", scope.fed),
        _norm_of(spec, scope, "post_norm", scope.residual),
    ]


def _sandwich(spec: ArchitectureSpec, scope: Scope, mix: list[Node], feed: list[Node], name: str) -> list[Node]:
    return [
        _input_norm(spec, scope, "input_norm"),
        *mix,
        _norm_of(spec, scope, "mixer_output_norm", scope.mixed),
        ends.residual(scope, name, scope.mixed),
        _input_norm(spec, scope, "post_norm"),
        *feed,
        _norm_of(spec, scope, "mlp_output_norm", scope.fed),
        ends.residual(scope, "mlp_residual", scope.fed),
    ]


def _parallel(spec: ArchitectureSpec, scope: Scope, mix: list[Node], feed: list[Node], name: str) -> list[Node]:
    """Both parts read the same rows, so their partial sums add before one all-reduce, behind the second part."""
    norms = [_input_norm(spec, scope, "input_norm")]
    if spec.residual == "parallel_two_norms":
        second = Value("normed_for_mlp", scope.hidden)
        norms.append(_norm_of(spec, scope, "post_norm", scope.residual, second))
        feed = _reading(feed, second.name)
    mix = [*mix[:-1], replace(mix[-1], after="")]
    joined = [ends.residual(scope, name, scope.mixed), ends.residual(scope, "mlp_residual", scope.fed)]
    return [*norms, *mix, *feed, *joined]


_LAYOUTS: dict[str, Callable[[ArchitectureSpec, Scope, list[Node], list[Node], str], list[Node]]] = {
    "pre_norm": _pre_norm,
    "post_norm": _post_norm,
    "sandwich": _sandwich,
    "parallel": _parallel,
    "parallel_two_norms": _parallel,
}


def _residual_name(mixer: object) -> str:
    return "attention_residual" if isinstance(mixer, Attention | LatentAttention) else "mixer_residual"


def _mixer(spec: ArchitectureSpec, scope: Scope, mixer: Any, width: int = 0) -> list[Node]:
    if isinstance(mixer, ParallelMixers):
        nodes: list[Node] = []
        for part in mixer.mixers:
            inner = _mixer(spec, scope.prefixed(f"{part.kind}_"), part, width)
            nodes += [*inner[:-1], replace(inner[-1], after="")]
        # Partial sums of all mixers add before one all-reduce.
        return [*nodes[:-1], replace(nodes[-1], after="all_reduce"), *_sums(scope, mixer)]
    if isinstance(mixer, Attention):
        return attention(
            scope,
            mixer,
            head_dim=spec.head_dim(mixer) if not width or mixer.head_dim else width // mixer.heads,
            rope=spec.position == "rope",
            width=width or scope.hidden,
        )
    return _BLOCKS[type(mixer)](scope, mixer)


def _sums(scope: Scope, mixer: ParallelMixers) -> list[Node]:
    parts = [scope.prefixed(f"{part.kind}_").mixed for part in mixer.mixers]
    nodes, total = [], parts[0]
    for index, part in enumerate(parts[1:], start=1):
        nodes.append(scope.pointwise(f"mixer_sum_{index}", "add", scope.hidden, flow=((total, part), (scope.mixed,))))
        total = scope.mixed
    return nodes


def _feed_forward(scope: Scope, ffn: Any) -> list[Node]:
    return _BLOCKS[type(ffn)](scope, ffn)


_BLOCKS: dict[type, Callable[[Scope, Any], list[Node]]] = {
    LatentAttention: latent_attention,
    Mamba: mamba,
    Mamba2: mamba2,
    GatedDelta: gated_delta,
    Mlp: mlp,
    Moe: moe,
}
