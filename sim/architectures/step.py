"""One execution of a model, and the helpers that turn its dimensions into graph nodes."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UnsupportedError
from ..graph.dtypes import dtype
from ..graph.graph import Node, Value
from ..graph.operator import Operator
from ..graph.operators.linear import Linear
from ..graph.operators.pointwise import Pointwise

PHASES = ("context", "generation", "training")


@dataclass(frozen=True, slots=True)
class Step:
    """One forward execution of a model.

    ``batch`` sequences get ``q_len`` new tokens each; afterwards each has ``kv_len`` keys, the new ones included.
    ``context`` is prefill (with a cached prefix where ``kv_len`` > ``q_len``), ``generation`` is decoding, ``training``
    is the forward pass of a training step: no cache is kept, every token gets logits and a loss.

    ``dtype`` is the type of activations, weights and arithmetic. ``weight_dtype`` and ``group_size`` narrow the stored
    weights of the layers' projections and experts; embeddings, norms, routers and the output head keep ``dtype``, as
    weight-only quantisation leaves them. ``kv_dtype`` is the type of cached keys and values. ``logit_tokens`` is how
    many of a sequence's new tokens get logits outside training (more than 1 to verify speculated tokens).

    Raises:
        UnsupportedError: an unknown phase or dtype, a dimension below 1, fewer keys than new tokens.
    """

    phase: str
    batch: int
    q_len: int
    kv_len: int
    dtype: str = "bf16"
    weight_dtype: str = ""
    group_size: int = 0
    kv_dtype: str = ""
    fused_attention: bool = True
    sampling: bool = True
    logit_tokens: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be executed."""
        if self.phase not in PHASES:
            raise UnsupportedError(f"step: phase is {self.phase!r}; expected one of {', '.join(PHASES)}")
        for name in ("batch", "q_len", "logit_tokens"):
            if getattr(self, name) < 1:
                raise UnsupportedError(f"step: {name} is {getattr(self, name)}; expected at least 1")
        for name in (self.dtype, self.weight_dtype, self.kv_dtype):
            if name:
                dtype(name)
        if not self.dtype or self.group_size < 0:
            raise UnsupportedError(
                f"step: dtype {self.dtype!r}, group_size {self.group_size}; expected a type, 0 or more"
            )
        if self.kv_len < self.q_len:
            raise UnsupportedError(f"step: kv_len {self.kv_len} is below q_len {self.q_len}, which it includes")
        if self.logit_tokens > self.q_len:
            raise UnsupportedError(f"step: logit_tokens {self.logit_tokens} exceeds the {self.q_len} new tokens")

    @property
    def tokens(self) -> int:
        """New tokens of all sequences."""
        return self.batch * self.q_len

    @property
    def training(self) -> bool:
        """A forward pass whose backward follows."""
        return self.phase == "training"


Values = tuple[Value, ...]
"""Activations that a node reads or writes."""

Flow = tuple[Values, Values]
"""What a node reads, and what it writes."""

NO_FLOW: Flow = ((), ())

TOKENS, POSITIONS, SEGMENTS = Value("tokens", 1), Value("positions", 1), Value("segments", 1)
"""What a step is given: token numbers, their places in their sequences, and (encoders) which text they belong to."""


class Scope:
    """Where a block is being built: the step, the width of the residual stream, and how its nodes are named.

    ``prefix`` goes before every node name and every value that the block makes; ``share`` is the name of the weights
    that other depths use too, or empty.
    """

    __slots__ = ("dtype", "hidden", "prefix", "share", "step", "tokens")

    def __init__(self, step: Step, hidden: int, prefix: str = "", share: str = "") -> None:
        """Start a block of *step* on rows *hidden* wide."""
        self.step, self.hidden, self.prefix, self.share = step, hidden, prefix, share
        self.tokens, self.dtype = step.tokens, step.dtype

    def prefixed(self, prefix: str) -> Scope:
        """The same scope with another prefix."""
        return Scope(self.step, self.hidden, prefix, self.share)

    def value(self, name: str, width: int, parts: int = 1, *, start: int = 0, of: int = 0) -> Value:
        """A value of this block, or a slice of one."""
        return Value(self.prefix + name, width, parts, start, of)

    @property
    def residual(self) -> Value:
        """The residual stream."""
        return Value("hidden", self.hidden)

    def normed(self, width: int = 0) -> Value:
        """What the block reads: the residual stream (or *width* columns) after its norm."""
        return Value("normed", width or self.hidden)

    @property
    def mixed(self) -> Value:
        """What a mixer adds to the residual stream."""
        return self.value("mixed", self.hidden)

    @property
    def fed(self) -> Value:
        """What a feed-forward part adds to the residual stream."""
        return self.value("fed", self.hidden)

    def node(self, name: str, op: Operator, split: str = "", after: str = "", flow: Flow = NO_FLOW) -> Node:
        """A node of this block."""
        name = self.prefix + name
        share = f"{self.share}.{name}" if self.share else ""
        return Node(name, op, split, after, share, inputs=flow[0], outputs=flow[1])

    def linear(
        self,
        name: str,
        n: int,
        k: int,
        split: str = "",
        after: str = "",
        *,
        bias: bool = False,
        flow: Flow = NO_FLOW,
    ) -> Node:
        """A projection [tokens, k] → [tokens, n] with the step's weight type."""
        step = self.step
        op = Linear(self.tokens, n, k, step.dtype, step.weight_dtype, step.group_size, bias=bias)
        return self.node(name, op, split, after, flow)

    def pointwise(
        self,
        name: str,
        op: str,
        cols: int,
        split: str = "",
        parameter_cols: int = -1,
        *,
        flow: Flow = NO_FLOW,
    ) -> Node:
        """A row-wise operator on all tokens."""
        made = Pointwise(op, self.tokens, cols, self.dtype, parameter_cols)
        return self.node(name, made, split, "", flow)
