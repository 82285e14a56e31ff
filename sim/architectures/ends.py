"""What stands before and after the layers: embeddings, final norm, output head, sampling, loss."""

from __future__ import annotations

from dataclasses import replace

from ..graph.graph import Node, Value
from ..graph.operators.convolution import Conv2d
from ..graph.operators.embedding import CrossEntropy, Embedding, Sampling
from ..graph.operators.linear import Linear
from ..graph.operators.pointwise import Pointwise
from ..spec.architecture import ArchitectureSpec, Norm, Patches
from .step import POSITIONS, SEGMENTS, TOKENS, Scope, Step

TIED = "embedding"
"""Name of the weight that embedding and output head share when they are tied."""


def norm(scope: Scope, name: str, spec: Norm, width: int = 0, *, reads: Value, writes: Value) -> Node:
    """The model's norm over the residual stream (or *width* columns)."""
    cols = width or scope.hidden
    if not spec.parametric:
        learned = 0
    elif spec.kind == "layernorm" and not spec.bias:
        learned = cols // 2  # the recipe counts a scale and a shift a column; half as many columns is a scale each
    else:
        learned = -1
    return scope.pointwise(name, spec.kind, cols, "", learned, flow=((reads,), (writes,)))


def head(spec: ArchitectureSpec, step: Step) -> list[Node]:
    """Tokens or patches to the residual stream: positions, segments, norm and projection where the model has them."""
    if spec.patches is not None:
        return _patches(spec, spec.patches, step)
    scope, width = Scope(step, spec.hidden), spec.embedding_width or spec.hidden
    assert spec.vocab is not None
    table = Embedding(step.tokens, spec.vocab, width, step.dtype)
    share = TIED if spec.tied_embeddings else ""
    stream, looked_up = scope.residual, Value("hidden", width)
    nodes = [Node("embedding", table, "vocab", "all_reduce", share, inputs=(TOKENS,), outputs=(looked_up,))]
    if width != spec.hidden:
        nodes.append(scope.linear("embedding_proj", spec.hidden, width, flow=((looked_up,), (stream,))))
    if spec.position == "learned" and spec.max_positions:
        rows = spec.max_positions + spec.position_offset
        positions, place = Embedding(step.tokens, rows, spec.hidden, step.dtype), Value("position", spec.hidden)
        nodes.append(Node("position_embedding", positions, inputs=(POSITIONS,), outputs=(place,)))
        nodes.append(scope.pointwise("position_add", "add", spec.hidden, flow=((stream, place), (stream,))))
    if spec.segments:
        table = Embedding(step.tokens, spec.segments, spec.hidden, step.dtype)
        kind = Value("segment", spec.hidden)
        nodes.append(Node("segment_embedding", table, inputs=(SEGMENTS,), outputs=(kind,)))
        nodes.append(scope.pointwise("segment_add", "add", spec.hidden, flow=((stream, kind), (stream,))))
    if spec.embedding_norm:
        nodes.append(norm(scope, "embedding_norm", spec.norm, reads=stream, writes=stream))
    return nodes


def _patches(spec: ArchitectureSpec, image: Patches, step: Step) -> list[Node]:
    """Patches by a convolution whose stride is its kernel, the class token in front, learned positions added.

    The class token is one more row of learned numbers beside the positions.
    """
    scope, tokens = Scope(step, spec.hidden), image.tokens
    cut = Conv2d(
        step.batch,
        image.height,
        image.width,
        image.channels,
        spec.hidden,
        image.patch,
        image.patch,
        dtype=step.dtype,
        bias=True,
    )
    nodes = [Node("patch_embedding", cut)]
    learned = tokens * spec.hidden
    if image.class_token:
        nodes.append(scope.pointwise("class_token", "copy", spec.hidden))
        learned += spec.hidden
    nodes.append(scope.pointwise("position_add", "bias", spec.hidden, "", learned))
    return nodes


def tail(spec: ArchitectureSpec, step: Step) -> list[Node]:
    """Final norm, output head, then the loss (training) or the draw of a token.

    Inference makes logits of the last ``logit_tokens`` of each sequence only.
    """
    if spec.encoder:
        return _encoder_tail(spec, step)
    assert spec.vocab is not None
    scope, width = Scope(step, spec.hidden), spec.embedding_width or spec.hidden
    rows = step.tokens if step.training else step.batch * step.logit_tokens
    stream, logits = scope.residual, Value("logits", spec.vocab)
    nodes = [norm(scope, "final_norm", spec.norm, reads=stream, writes=stream)] if spec.final_norm else []
    if not step.training:
        stream = replace(stream, last=step.logit_tokens)
    if width != spec.hidden:
        narrow = Value("narrow", width)
        head_proj = Linear(rows, width, spec.hidden, step.dtype)
        nodes.append(Node("head_proj", head_proj, inputs=(stream,), outputs=(narrow,)))
        stream = narrow
    lm_head = Linear(rows, spec.vocab, width, step.dtype, bias=spec.lm_head_bias)
    share = TIED if spec.tied_embeddings else ""
    # The loss works on divided logits; only a draw needs the full row on one device.
    after = "" if step.training else "all_gather"
    nodes.append(Node("lm_head", lm_head, "vocab", after, share, inputs=(stream,), outputs=(logits,)))
    if step.training:
        loss = CrossEntropy(rows, spec.vocab)
        nodes.append(
            Node("cross_entropy", loss, "vocab", inputs=(logits,), outputs=(Value("log_probabilities", spec.vocab),))
        )
    elif step.sampling:
        drawn = (Value("next_tokens", 1),)
        nodes.append(Node("sampling", Sampling(rows, spec.vocab), inputs=(logits,), outputs=drawn))
    return nodes


def _encoder_tail(spec: ArchitectureSpec, step: Step) -> list[Node]:
    """Final norm over all tokens; pooler and classifier see the first token of each sequence."""
    scope, rows, hidden = Scope(step, spec.hidden), step.batch, spec.hidden
    stream = scope.residual
    nodes = [norm(scope, "final_norm", spec.norm, reads=stream, writes=stream)] if spec.final_norm else []
    if spec.pooler:
        nodes.append(Node("pooler", Linear(rows, hidden, hidden, step.dtype, bias=True)))
        nodes.append(Node("pooler_tanh", Pointwise("exp", rows, hidden, step.dtype)))  # one special function each
    if spec.classes is not None:
        nodes.append(Node("classifier", Linear(rows, spec.classes, hidden, step.dtype, bias=True)))
        if step.training:
            nodes.append(Node("cross_entropy", CrossEntropy(rows, spec.classes)))
    return nodes


def residual(scope: Scope, name: str, part: Value) -> Node:
    """Addition of *part* to the residual stream."""
    return scope.pointwise(name, "add", scope.hidden, flow=((scope.residual, part), (scope.residual,)))


def concatenate(scope: Scope, name: str) -> Node:
    """The residual stream beside the embedding output, twice as wide."""
    return scope.node(name, Pointwise("copy", scope.tokens, 2 * scope.hidden, scope.dtype))
