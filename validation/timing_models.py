"""Whole models twice: as plain PyTorch with random weights, and as the graph of operators that effsim prices.

Both are written from the same dimensions. ``views`` counts the operators that move nothing (splits, transposes,
reshapes) of one run: an eager framework pays for them, no graph needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from effsim.graph.graph import Graph, Node, Repeat
from effsim.graph.operator import Operator
from effsim.graph.operators.attention import Attention
from effsim.graph.operators.convolution import CausalConv1d, Conv2d
from effsim.graph.operators.embedding import Embedding
from effsim.graph.operators.linear import Linear
from effsim.graph.operators.pointwise import Pointwise
from effsim.graph.operators.scan import SelectiveScan

FP32 = "fp32"


@dataclass(frozen=True, slots=True)
class TimedModel:
    """``call`` runs the model once; ``graph`` is the same work; ``fused`` False: scans run operator by operator."""

    name: str
    call: Callable[[], Any]
    graph: Graph
    views: int
    fused: bool = True


@dataclass(frozen=True, slots=True)
class Width:
    """Dimensions of a transformer encoder or decoder."""

    layers: int = 12
    width: int = 768
    heads: int = 12
    hidden: int = 3072

    @property
    def head(self) -> int:
        """Width of one head."""
        return self.width // self.heads


def models(torch: Any, quick: bool = False) -> Iterator[TimedModel]:
    """The models in the order in which they are reported."""
    layers = 4 if quick else 12
    yield gpt2(torch, Width(layers), tokens=128, past=0)
    yield gpt2(torch, Width(layers), tokens=1, past=255)
    yield vit(torch, Width(layers))
    yield mamba_block(torch, length=128 if quick else 256)
    yield bert(torch, Width(layers), tokens=128)


def _block_nodes(w: Width, tokens: int, attention: Operator, norm_first: bool, act: str) -> tuple[Node, ...]:
    """One transformer block with a joint projection of queries, keys and values."""
    norm = Pointwise("layernorm", tokens, w.width, FP32)
    residual = Pointwise("add", tokens, w.width, FP32)
    first = (
        Node("qkv", Linear(tokens, 3 * w.width, w.width, FP32, bias=True)),
        Node("attention", attention),
        Node("merge heads", Pointwise("copy", tokens, w.width, FP32)),
        Node("projection", Linear(tokens, w.width, w.width, FP32, bias=True)),
        Node("residual", residual),
    )
    second = (
        Node("up", Linear(tokens, w.hidden, w.width, FP32, bias=True)),
        Node("activation", Pointwise(act, tokens, w.hidden, FP32)),
        Node("down", Linear(tokens, w.width, w.hidden, FP32, bias=True)),
        Node("residual 2", residual),
    )
    if norm_first:
        return (Node("norm", norm), *first, Node("norm 2", norm), *second)
    return (*first, Node("norm", norm), *second, Node("norm 2", norm))


class _Weights:
    """Random weights of one block."""

    def __init__(self, torch: Any, w: Width) -> None:
        def matrix(n: int, k: int) -> tuple[Any, Any]:
            return torch.randn(n, k) * 0.02, torch.zeros(n)

        self.qkv, self.projection = matrix(3 * w.width, w.width), matrix(w.width, w.width)
        self.up, self.down = matrix(w.hidden, w.width), matrix(w.width, w.hidden)
        self.norms = [(torch.ones(w.width), torch.zeros(w.width)) for _ in range(2)]


def _attend(torch: Any, w: Width, block: _Weights, x: Any, causal: bool, cache: tuple[Any, Any] | None) -> Any:
    """Self-attention of ``x`` [tokens, width]; *cache* is (keys, values) with room for the new token at the end."""
    f, tokens = torch.nn.functional, x.shape[0]
    q, k, v = (
        part.view(1, tokens, w.heads, w.head).transpose(1, 2) for part in f.linear(x, *block.qkv).split(w.width, 1)
    )
    if cache is not None:
        for store, new in zip(cache, (k, v), strict=True):
            store[:, :, -tokens:] = new
        k, v = cache
    out = f.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return f.linear(out.transpose(1, 2).reshape(tokens, w.width), *block.projection)


ATTEND_VIEWS = 1 + 3 * 2 + 2


def gpt2(torch: Any, w: Width, *, tokens: int, past: int) -> TimedModel:
    """A GPT-2-size decoder: prefill of *tokens*, or one token behind *past* cached ones; logits of every token."""
    f, vocabulary, positions = torch.nn.functional, 50257, 1024
    blocks = [_Weights(torch, w) for _ in range(w.layers)]
    words, places = torch.randn(vocabulary, w.width) * 0.02, torch.randn(positions, w.width) * 0.02
    shape = (1, w.heads, past + tokens, w.head)
    caches = [(torch.randn(shape), torch.randn(shape)) if past else None for _ in blocks]
    ids, at = torch.randint(0, vocabulary, (tokens,)), torch.arange(past, past + tokens)
    last = (torch.ones(w.width), torch.zeros(w.width))

    def call() -> Any:
        x = f.embedding(ids, words) + f.embedding(at, places)
        for block, cache in zip(blocks, caches, strict=True):
            normed = f.layer_norm(x, (w.width,), *block.norms[0])
            x = x + _attend(torch, w, block, normed, cache is None, cache)
            hidden = f.linear(f.layer_norm(x, (w.width,), *block.norms[1]), *block.up)
            x = x + f.linear(f.gelu(hidden, approximate="tanh"), *block.down)
        return f.linear(f.layer_norm(x, (w.width,), *last), words)

    phase = "generation" if past else "context"
    attention = Attention(phase, 1, tokens, past + tokens, w.heads, w.heads, w.head, FP32)
    body: list[Node] = list(_block_nodes(w, tokens, attention, True, "gelu_tanh"))
    if past:
        stores = [Node(f"store {name}", Pointwise("copy", tokens, w.width, FP32)) for name in ("keys", "values")]
        body[2:2] = stores
    items = (
        Node("words", Embedding(tokens, vocabulary, w.width, FP32)),
        Node("places", Embedding(tokens, positions, w.width, FP32)),
        Node("sum", Pointwise("add", tokens, w.width, FP32)),
        Repeat("layers", tuple(body), w.layers),
        Node("norm", Pointwise("layernorm", tokens, w.width, FP32)),
        Node("head", Linear(tokens, vocabulary, w.width, FP32)),
    )
    what = "decode" if past else "prefill"
    views = w.layers * (ATTEND_VIEWS + (6 if past else 0))
    return TimedModel(f"GPT-2, {w.layers} layers, {what}", call, Graph(what, items), views)


def vit(torch: Any, w: Width) -> TimedModel:
    """ViT-B/16 at 224 pixels: a patch embedding, a class token, encoder blocks, a classifier."""
    f, side, patch, classes = torch.nn.functional, 224, 16, 1000
    grid = side // patch
    tokens = grid * grid + 1
    blocks = [_Weights(torch, w) for _ in range(w.layers)]
    image, taps = torch.randn(1, 3, side, side), torch.randn(w.width, 3, patch, patch) * 0.02
    first, places = torch.randn(1, w.width), torch.randn(tokens, w.width)
    last, head = (torch.ones(w.width), torch.zeros(w.width)), (torch.randn(classes, w.width), torch.zeros(classes))
    zeros = torch.zeros(w.width)

    def call() -> Any:
        patches = f.conv2d(image, taps, zeros, patch).flatten(2).squeeze(0).transpose(0, 1)
        x = torch.cat((first, patches)) + places
        for block in blocks:
            x = x + _attend(torch, w, block, f.layer_norm(x, (w.width,), *block.norms[0]), False, None)
            hidden = f.linear(f.layer_norm(x, (w.width,), *block.norms[1]), *block.up)
            x = x + f.linear(f.gelu(hidden), *block.down)
        return f.linear(f.layer_norm(x, (w.width,), *last)[:1], *head)

    attention = Attention("context", 1, tokens, tokens, w.heads, w.heads, w.head, FP32, causal=False)
    items = (
        Node("patches", Conv2d(1, side, side, 3, w.width, patch, patch, 0, 1, FP32)),
        Node("class token", Pointwise("copy", tokens, w.width, FP32)),
        Node("places", Pointwise("add", tokens, w.width, FP32)),
        Repeat("layers", _block_nodes(w, tokens, attention, True, "gelu"), w.layers),
        Node("norm", Pointwise("layernorm", tokens, w.width, FP32)),
        Node("head", Linear(1, classes, w.width, FP32, bias=True)),
    )
    return TimedModel(f"ViT-B/16, {w.layers} layers", call, Graph("vit", items), w.layers * ATTEND_VIEWS + 4)


def bert(torch: Any, w: Width, *, tokens: int) -> TimedModel:
    """BERT-base encoder: embeddings, blocks with the norm behind the residual, no head."""
    f, vocabulary = torch.nn.functional, 30522
    blocks = [_Weights(torch, w) for _ in range(w.layers)]
    words, places = torch.randn(vocabulary, w.width) * 0.02, torch.randn(512, w.width) * 0.02
    ids, at = torch.randint(0, vocabulary, (tokens,)), torch.arange(tokens)
    start = (torch.ones(w.width), torch.zeros(w.width))

    def call() -> Any:
        x = f.layer_norm(f.embedding(ids, words) + f.embedding(at, places), (w.width,), *start)
        for block in blocks:
            x = f.layer_norm(x + _attend(torch, w, block, x, False, None), (w.width,), *block.norms[0])
            hidden = f.linear(f.gelu(f.linear(x, *block.up)), *block.down)
            x = f.layer_norm(x + hidden, (w.width,), *block.norms[1])
        return x

    attention = Attention("context", 1, tokens, tokens, w.heads, w.heads, w.head, FP32, causal=False)
    items = (
        Node("words", Embedding(tokens, vocabulary, w.width, FP32)),
        Node("places", Embedding(tokens, 512, w.width, FP32)),
        Node("sum", Pointwise("add", tokens, w.width, FP32)),
        Node("norm", Pointwise("layernorm", tokens, w.width, FP32)),
        Repeat("layers", _block_nodes(w, tokens, attention, False, "gelu"), w.layers),
    )
    return TimedModel(f"BERT-base, {w.layers} layers", call, Graph("bert", items), w.layers * ATTEND_VIEWS)


def mamba_block(torch: Any, *, length: int, width: int = 768, state: int = 16, rank: int = 48) -> TimedModel:
    """A Mamba block as eager users have it: the scan is a Python loop over tokens."""
    f, inner = torch.nn.functional, 2 * width
    into, out = torch.randn(2 * inner, width) * 0.02, torch.randn(width, inner) * 0.02
    taps, bias = torch.randn(inner, 1, 4), torch.zeros(inner)
    select, steps = torch.randn(rank + 2 * state, inner) * 0.02, (torch.randn(inner, rank) * 0.02, torch.zeros(inner))
    a, d = -torch.rand(inner, state), torch.ones(inner)
    x0, scale = torch.randn(length, width), torch.ones(width)

    def call() -> Any:
        x, z = f.linear(f.rms_norm(x0, (width,), scale), into).split(inner, 1)
        x = f.conv1d(x.transpose(0, 1).unsqueeze(0), taps, bias, 1, 3, 1, inner)[0, :, :length]
        x = f.silu(x).transpose(0, 1).contiguous()
        low, b, c = f.linear(x, select).split((rank, state, state), 1)
        delta = f.softplus(f.linear(low, *steps))
        return f.linear(scan(torch, x, delta, a, b, c, d, z), out) + x0

    rows = length
    items = (
        Node("norm", Pointwise("rmsnorm", rows, width, FP32)),
        Node("in", Linear(rows, 2 * inner, width, FP32)),
        Node("conv", CausalConv1d(1, rows, inner, 4, FP32)),
        Node("silu", Pointwise("silu", rows, inner, FP32)),
        Node("layout", Pointwise("copy", rows, inner, FP32)),
        Node("select", Linear(rows, rank + 2 * state, inner, FP32)),
        Node("delta", Linear(rows, inner, rank, FP32, bias=True)),
        Node("softplus", Pointwise("softplus", rows, inner, FP32)),
        Node("scan", SelectiveScan(1, rows, inner, state, FP32)),
        Node("out", Linear(rows, width, inner, FP32)),
        Node("residual", Pointwise("add", rows, width, FP32)),
    )
    return TimedModel(f"Mamba block, {length} tokens", call, Graph("mamba", items), 12, fused=False)


def scan(torch: Any, x: Any, delta: Any, a: Any, b: Any, c: Any, d: Any, z: Any) -> Any:
    """The selective scan, token by token: x, delta, z [length, channels]; b, c [length, state]; a [channels, state]."""
    decay = torch.exp(delta.unsqueeze(-1) * a)
    fed = (delta * x).unsqueeze(-1) * b.unsqueeze(1)
    h, rows = torch.zeros_like(a), []
    for t in range(x.shape[0]):
        h = decay[t] * h + fed[t]
        rows.append((h * c[t].unsqueeze(0)).sum(-1))
    return (torch.stack(rows) + x * d) * torch.nn.functional.silu(z)
