"""Linear-time sequence operators: selective scan (Mamba), SSD scan (Mamba-2), gated delta rule.

All keep a state whose size does not depend on the sequence length; decode is the same operator with ``length`` 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ...errors import UnsupportedError
from ..dtypes import size_of
from ..operator import Access, Arithmetic, Operator, Role, ceil_div, divide, positive


@dataclass(frozen=True, slots=True)
class ScanBackward(Operator):
    """Backward of a scan: the forward is recomputed from its inputs, then swept in reverse (3 × its arithmetic)."""

    kind: ClassVar[str] = "scan_backward"
    forward: Operator

    def arithmetic(self) -> Arithmetic:
        """Recomputation plus a reverse sweep of twice the work."""
        return self.forward.arithmetic() * 3.0

    def accesses(self) -> tuple[Access, ...]:
        """Inputs and dy in, input gradients out."""
        f = self.forward
        return (
            Access(Role.ACTIVATION, f.input_bytes + f.output_bytes),
            Access(Role.ACTIVATION, f.input_bytes, write=True),
        )


@dataclass(frozen=True, slots=True)
class SelectiveScan(Operator):
    """Mamba's S6 scan, fused: ``h_t = exp(Δ_t A)·h_{t−1} + Δ_t B_t x_t``, ``y_t = C_t h_t + D x_t``, gated by z.

    Per token, channel and state: Δ·A, its exponential, Δ·B·x, a multiply-add for h and one for y (7 operations and
    one exponential). Owns A [channels, state] and D [channels].
    """

    kind: ClassVar[str] = "selective_scan"
    batch: int
    length: int
    channels: int
    state: int
    dtype: str = "fp16"
    state_dtype: str = "fp32"

    def __post_init__(self) -> None:
        positive(self, "batch", "length", "channels", "state")

    def arithmetic(self) -> Arithmetic:
        """7·B·L·D·N vector operations and one exponential each, plus softplus, gate and skip a channel."""
        points = float(self.batch) * self.length * self.channels
        return Arithmetic(vector=points * (7.0 * self.state + 8.0), special=points * (self.state + 4.0))

    def accesses(self) -> tuple[Access, ...]:
        """x, Δ, z in and y out (channels wide), B and C (state wide), the state once in and out."""
        word, tokens = size_of(self.dtype), float(self.batch) * self.length
        return (
            Access(Role.ACTIVATION, tokens * (3 * self.channels + 2 * self.state) * word),
            Access(Role.WEIGHT, self.weight_bytes),
            Access(Role.ACTIVATION, tokens * self.channels * word, write=True),
            Access(Role.STATE, self.state_bytes),
            Access(Role.STATE, self.state_bytes, write=True),
        )

    @property
    def parameters(self) -> int:
        """A and D."""
        return self.channels * (self.state + 1)

    @property
    def weight_bytes(self) -> float:
        """A and D, kept in fp32."""
        return self.parameters * 4.0

    @property
    def state_bytes(self) -> float:
        """batch · channels · state."""
        return float(self.batch) * self.channels * self.state * size_of(self.state_dtype)

    def split(self, axis: str, degree: int) -> Operator:
        """``column``/``heads`` divides the channels."""
        if axis in ("column", "heads"):
            return replace(self, channels=divide(self.channels, degree, "channels", self.kind))
        raise UnsupportedError(f"selective_scan cannot be split by {axis!r}; expected column")

    def backward(self) -> tuple[Operator, ...]:
        """Recompute and sweep back."""
        return (ScanBackward(self),)


@dataclass(frozen=True, slots=True)
class SSDScan(Operator):
    """Mamba-2's structured state-space duality scan in its chunked, GEMM-shaped form.

    With chunk Q, heads H of width P, state N and G groups, per sequence of L tokens:
    ``C·Bᵀ`` inside a chunk 2·L·Q·N·G (half under the causal mask is not skipped by the kernels), scores times x
    2·L·Q·P·H, chunk states 2·L·N·P·H, output from the carried state 2·L·N·P·H. A single token runs the recurrence,
    unless it is a prompt (``context``).
    """

    kind: ClassVar[str] = "ssd_scan"
    batch: int
    length: int
    heads: int
    head_dim: int
    state: int
    groups: int = 1
    chunk: int = 256
    dtype: str = "bf16"
    state_dtype: str = "fp32"
    context: bool = False

    def __post_init__(self) -> None:
        positive(self, "batch", "length", "heads", "head_dim", "state", "groups", "chunk")

    @property
    def recurrent(self) -> bool:
        """A single token uses the recurrent step, unless it is a prompt (``context``)."""
        return self.length == 1 and not self.context

    @property
    def block(self) -> int:
        """Chunk length in use: a short sequence is one chunk of its own length."""
        return min(self.chunk, self.length)

    @property
    def chunks(self) -> int:
        """Chunks of one sequence."""
        return ceil_div(self.length, self.block)

    def arithmetic(self) -> Arithmetic:
        """The four products of the chunked form, or 5 vector operations a state element when recurrent."""
        tokens = float(self.batch) * self.length
        inner = float(self.heads) * self.head_dim
        if self.recurrent:
            return Arithmetic(vector=tokens * inner * (5.0 * self.state + 3.0), special=tokens * self.heads * 2.0)
        q, n = self.block, self.state
        matrix = 2.0 * tokens * (q * n * self.groups + q * inner + 2.0 * n * inner)
        decay = tokens * q * self.heads  # the decay matrix exp(segment sums) and its product with C·Bᵀ
        carry = 2.0 * self.batch * self.chunks * inner * n
        return Arithmetic(matrix=matrix, vector=3.0 * decay + carry + 3.0 * tokens * inner, special=decay)

    def accesses(self) -> tuple[Access, ...]:
        """x, B, C, Δ in, y out, the state once in and out."""
        word, tokens = size_of(self.dtype), float(self.batch) * self.length
        inner = self.heads * self.head_dim
        return (
            Access(Role.ACTIVATION, tokens * (inner + 2 * self.groups * self.state + self.heads) * word),
            Access(Role.WEIGHT, self.weight_bytes),
            Access(Role.ACTIVATION, tokens * inner * word, write=True),
            Access(Role.STATE, self.state_bytes),
            Access(Role.STATE, self.state_bytes, write=True),
        )

    @property
    def parameters(self) -> int:
        """A, D and the Δ bias, one a head each."""
        return 3 * self.heads

    @property
    def weight_bytes(self) -> float:
        """Kept in fp32."""
        return self.parameters * 4.0

    @property
    def state_bytes(self) -> float:
        """batch · heads · head_dim · state."""
        return float(self.batch) * self.heads * self.head_dim * self.state * size_of(self.state_dtype)

    def split(self, axis: str, degree: int) -> Operator:
        """``heads`` divide; groups divide too or are copied."""
        if axis in ("heads", "column"):
            heads = divide(self.heads, degree, "heads", self.kind)
            if self.groups % degree and degree % self.groups:
                raise UnsupportedError(f"ssd_scan: {self.groups} groups do not divide over {degree} devices")
            return replace(self, heads=heads, groups=max(1, self.groups // degree))
        raise UnsupportedError(f"ssd_scan cannot be split by {axis!r}; expected heads")

    def backward(self) -> tuple[Operator, ...]:
        """Recompute and sweep back."""
        return (ScanBackward(self),)


@dataclass(frozen=True, slots=True)
class GatedDelta(Operator):
    """Gated delta rule (Gated DeltaNet), chunked with the WY form.

    Per head and chunk of C tokens: ``K·Kᵀ`` and ``Q·Kᵀ`` (2·2·C²·dk), the triangular inverse (C³/3 multiply-adds),
    its products with K and V (2·C²·(dk + dv)), scores times the corrected values (2·C²·dv), and three products with
    the state (3·2·C·dk·dv). A single token reads and rewrites the state (7 operations an element).
    ``initial_state_dtype``: the state is read in it and written in ``state_dtype`` (default: both alike). ``alone``:
    called over and over on the same state, not as part of a model. ``context``: a prompt, also where it is one token.
    """

    kind: ClassVar[str] = "gated_delta"
    batch: int
    length: int
    heads: int
    key_dim: int
    value_dim: int
    chunk: int = 64
    dtype: str = "bf16"
    state_dtype: str = "fp32"
    initial_state_dtype: str = ""
    alone: bool = False
    context: bool = False

    def __post_init__(self) -> None:
        positive(self, "batch", "length", "heads", "key_dim", "value_dim", "chunk")

    @property
    def recurrent(self) -> bool:
        """A single token uses the recurrent step, unless it is a prompt (``context``)."""
        return self.length == 1 and not self.context

    @property
    def block(self) -> int:
        """Chunk length in use."""
        return min(self.chunk, self.length)

    @property
    def chunks(self) -> int:
        """Chunks of one sequence."""
        return ceil_div(self.length, self.block)

    def arithmetic(self) -> Arithmetic:
        """Sum of the products named above over heads and chunks."""
        heads = float(self.batch) * self.heads
        dk, dv, c = self.key_dim, self.value_dim, self.block
        if self.recurrent:
            return Arithmetic(vector=heads * (7.0 * dk * dv + 4.0 * (dk + dv)), special=2.0 * heads)
        products = 2.0 * c * c * (2 * dk + dk + dv + dv) + 6.0 * c * dk * dv
        inverse = 2.0 / 3.0 * c**3
        blocks = heads * self.chunks
        vector = blocks * (inverse + 3.0 * c * c + 4.0 * c * (dk + dv) + dk * dv)
        return Arithmetic(matrix=blocks * products, vector=vector, special=blocks * c * (c + 2.0))

    def accesses(self) -> tuple[Access, ...]:
        """q, k, v, the two gates in, the output out, the state once in and out."""
        word, tokens = size_of(self.dtype), float(self.batch) * self.length * self.heads
        return (
            Access(Role.ACTIVATION, tokens * (2 * self.key_dim + self.value_dim + 2) * word),
            Access(Role.WEIGHT, self.weight_bytes),
            Access(Role.ACTIVATION, tokens * self.value_dim * word, write=True),
            Access(Role.STATE, self.initial_state_bytes),
            Access(Role.STATE, self.state_bytes, write=True),
        )

    @property
    def initial_state_bytes(self) -> float:
        """The state as it is read."""
        word = size_of(self.initial_state_dtype or self.state_dtype)
        return float(self.batch) * self.heads * self.key_dim * self.value_dim * word

    @property
    def parameters(self) -> int:
        """A and the decay bias, one a head each."""
        return 2 * self.heads

    @property
    def weight_bytes(self) -> float:
        """Kept in fp32."""
        return self.parameters * 4.0

    @property
    def state_bytes(self) -> float:
        """batch · heads · key_dim · value_dim."""
        return float(self.batch) * self.heads * self.key_dim * self.value_dim * size_of(self.state_dtype)

    def split(self, axis: str, degree: int) -> Operator:
        """``heads`` divide."""
        if axis in ("heads", "column"):
            return replace(self, heads=divide(self.heads, degree, "heads", self.kind))
        raise UnsupportedError(f"gated_delta cannot be split by {axis!r}; expected heads")

    def backward(self) -> tuple[Operator, ...]:
        """Recompute and sweep back."""
        return (ScanBackward(self),)
