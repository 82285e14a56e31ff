"""Softmax attention over keys and values, dense or latent, and the upkeep of their cache."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ...errors import UnsupportedError
from ..dtypes import size_of
from ..operator import Access, Arithmetic, Operator, Role, divide, positive

SOFTMAX_VECTOR_PER_SCORE = 4.0
"""Scale, running maximum, subtraction, running sum: vector operations of one score in a fused softmax."""


def attended_pairs(q_len: int, kv_len: int, causal: bool, window: int) -> int:
    """Number of (query, key) pairs that the mask lets through, for one head of one sequence.

    The last query sits at the last key. ``window`` > 0 keeps that many keys, its own included.

    >>> attended_pairs(4, 4, causal=True, window=0)
    10
    >>> attended_pairs(1, 4096, causal=True, window=0)
    4096
    >>> attended_pairs(4, 4, causal=True, window=2)
    7
    """
    if not causal:
        return q_len * (min(window, kv_len) if window else kv_len)
    first = kv_len - q_len + 1  # keys seen by the first query
    if not window or window >= kv_len:
        return q_len * first + q_len * (q_len - 1) // 2
    growing = min(max(window - first, 0), q_len)  # queries that see fewer than `window` keys
    return growing * first + growing * (growing - 1) // 2 + (q_len - growing) * window


@dataclass(frozen=True, slots=True)
class Attention(Operator):
    """``softmax(q·kᵀ)·v`` with grouped keys: ``kv_heads`` serve ``heads`` queries (MHA: equal, MQA: 1).

    ``phase`` is ``context`` (many queries, causal unless told) or ``generation`` (``q_len`` new tokens against a
    cache of ``kv_len`` keys that includes them). ``fused`` keeps scores on chip; otherwise they pass through memory.
    Keys and values are read once per *kv* head, whatever the number of query heads. ``shared_value``: the value is a
    part of the key (a latent cache) and takes no bytes of its own. ``call``: as an inference engine runs it, with the
    write of the new tokens to the cache, by itself and again and again on the same tensors (a row of a kernel table);
    work and bytes stay those of the attention. ``appends``: the call contains that write; None: as the hardware file
    says. ``per_head`` > 0: a generation kernel of the first engines, a block a query head, which shares no keys between
    the heads of a group and uses no matrix unit: so many instructions an element of keys and values.
    ``dropout``: probabilities are dropped at random before they weigh the values. ``cache_share``: part of the cache
    that stays on this device where the keys of others were fetched for the step (context parallelism). ``kernel``: a
    fused kernel of a training framework other than its usual one, by the name that hardware files give it.
    """

    kind: ClassVar[str] = "attention"
    phase: str
    batch: int
    q_len: int
    kv_len: int
    heads: int
    kv_heads: int
    head_dim: int
    dtype: str = "fp16"
    kv_dtype: str = ""
    causal: bool = True
    window: int = 0
    fused: bool = True
    value_dim: int = 0
    cached: bool = True
    shared_value: bool = False
    call: bool = False
    appends: bool | None = None
    per_head: int = 0
    dropout: bool = False
    cache_share: float = 1.0
    kernel: str = ""

    def __post_init__(self) -> None:
        positive(self, "batch", "q_len", "kv_len", "heads", "kv_heads", "head_dim")
        if self.phase not in ("context", "generation"):
            raise UnsupportedError(f"attention: phase is {self.phase!r}; expected context or generation")
        if self.heads % self.kv_heads:
            raise UnsupportedError(f"attention: {self.heads} heads is no multiple of {self.kv_heads} kv_heads")
        if self.causal and self.q_len > self.kv_len:
            raise UnsupportedError(f"attention: q_len {self.q_len} exceeds kv_len {self.kv_len} under a causal mask")

    @property
    def v_dim(self) -> int:
        """Width of one value head."""
        return self.value_dim or self.head_dim

    @property
    def stored_dtype(self) -> str:
        """Type of the cached keys and values."""
        return self.kv_dtype or self.dtype

    @property
    def kv_width(self) -> int:
        """Elements of one key with its value, as stored."""
        return self.head_dim + (0 if self.shared_value else self.v_dim)

    @property
    def pairs(self) -> int:
        """(query, key) pairs of one head of one sequence."""
        return attended_pairs(self.q_len, self.kv_len, self.causal, self.window)

    @property
    def keys_read(self) -> int:
        """Distinct keys that any query of a sequence sees."""
        return min(self.kv_len, self.window + self.q_len - 1) if self.window else self.kv_len

    def arithmetic(self) -> Arithmetic:
        """2·pairs·(d_qk + d_v) FLOP a head; one exponential and a few vector operations a score."""
        scores = 1.0 * self.batch * self.heads * self.pairs
        return Arithmetic(
            matrix=2.0 * scores * (self.head_dim + self.v_dim),
            vector=SOFTMAX_VECTOR_PER_SCORE * scores,
            special=scores,
        )

    @property
    def kv_bytes(self) -> float:
        """Bytes of the distinct keys and values the step reads."""
        return 1.0 * self.batch * self.keys_read * self.kv_heads * self.kv_width * size_of(self.stored_dtype)

    def accesses(self) -> tuple[Access, ...]:
        """q and the output once, k and v once per kv head; unfused scores are written and read twice."""
        word = size_of(self.dtype)
        rows = 1.0 * self.batch * self.q_len * self.heads
        out = [
            Access(Role.ACTIVATION, rows * self.head_dim * word),
            Access(Role.KV_CACHE if self.cached else Role.ACTIVATION, self.kv_bytes),
            Access(Role.ACTIVATION, rows * self.v_dim * word, write=True),
        ]
        if not self.fused:
            scores = rows * self.kv_len * word
            out += [Access(Role.ACTIVATION, 2 * scores, write=True), Access(Role.ACTIVATION, 2 * scores)]
        return tuple(out)

    @property
    def output_bytes(self) -> float:
        """Bytes of the result, and of the scores where they are materialised."""
        rows = 1.0 * self.batch * self.q_len * self.heads * size_of(self.dtype)
        return rows * (self.v_dim + (0 if self.fused else self.kv_len))

    @property
    def cache_bytes(self) -> float:
        """Keys and values of one layer that stay; a window bounds them."""
        if not self.cached:
            return 0.0
        kept = min(self.kv_len, self.window) if self.window else self.kv_len
        whole = 1.0 * self.batch * kept * self.kv_heads * self.kv_width * size_of(self.stored_dtype)
        return whole * self.cache_share

    @property
    def saved_bytes(self) -> float:
        """q, k, v and one fp32 log-sum-exp a row; unfused attention keeps its probabilities instead.

        The output is kept by the projection that reads it, and counted there.
        """
        word = size_of(self.dtype)
        rows = 1.0 * self.batch * self.q_len * self.heads
        keep = rows * self.head_dim * word + self.kv_bytes
        return keep + (rows * 4.0 if self.fused else rows * self.kv_len * (word + self.dropout_bytes))

    @property
    def dropout_bytes(self) -> float:
        """Bytes a score that unfused dropout keeps: a mask of one byte, and the probabilities that are left."""
        return 1.0 + size_of(self.dtype) if self.dropout and not self.fused else 0.0

    def split(self, axis: str, degree: int) -> Operator:
        """``heads``: query heads divide; kv heads divide too, or are copied where there are fewer than devices."""
        if axis == "heads":
            heads = divide(self.heads, degree, "heads", self.kind)
            if self.kv_heads % degree and degree % self.kv_heads:
                raise UnsupportedError(f"attention: {self.kv_heads} kv_heads do not divide over {degree} devices")
            return replace(self, heads=heads, kv_heads=max(1, self.kv_heads // degree))
        if axis == "batch":
            return replace(self, batch=divide(self.batch, degree, "sequences", self.kind))
        raise UnsupportedError(f"attention cannot be split by {axis!r}; expected heads or batch")

    def backward(self) -> tuple[Operator, ...]:
        """Five products instead of two, with the scores recomputed (fused) as in FlashAttention."""
        return (AttentionBackward(self),)


@dataclass(frozen=True, slots=True)
class AttentionBackward(Operator):
    """Gradients of q, k and v: 2.5 × the forward's products (scores recomputed, dV, dP, dQ, dK)."""

    kind: ClassVar[str] = "attention_backward"
    forward: Attention

    def arithmetic(self) -> Arithmetic:
        """Five products where the forward has two; the exponential is recomputed."""
        f = self.forward.arithmetic()
        return Arithmetic(matrix=2.5 * f.matrix, vector=2.0 * f.vector, special=f.special)

    def accesses(self) -> tuple[Access, ...]:
        """Reads q, k, v, out, dOut; writes dQ, dK, dV."""
        f = self.forward
        word = size_of(f.dtype)
        rows = float(f.batch) * f.q_len * f.heads * word
        read = rows * (f.head_dim + 2 * f.v_dim) + f.kv_bytes
        write = rows * f.head_dim + f.kv_bytes
        scores = 0.0 if f.fused else 4.0 * rows * f.kv_len
        return (Access(Role.ACTIVATION, read + scores), Access(Role.ACTIVATION, write, write=True))


@dataclass(frozen=True, slots=True)
class LatentAttention(Operator):
    """Multi-head latent attention (DeepSeek-V2): one compressed key/value vector a token serves all heads.

    ``generation`` runs in the absorbed form: every head attends to the latent (``kv_lora_rank`` + ``rope_dim`` wide)
    and returns a latent. ``context`` runs expanded: heads of ``nope_dim`` + ``rope_dim`` keys and ``v_dim`` values.
    The up-projections are linear operators of their own. The cache holds (kv_lora_rank + rope_dim) a token.
    ``call``: as an inference engine runs it (a row of a kernel table), with the write to the cache; work and bytes stay
    those of the attention. ``module``: the call is the engine's whole module, with the up-projections and the host that
    launches its kernels one by one; otherwise a captured graph of the attention alone. None: as the hardware file says.
    ``cache_share``: see :class:`Attention`.
    """

    kind: ClassVar[str] = "latent_attention"
    phase: str
    batch: int
    q_len: int
    kv_len: int
    heads: int
    kv_lora_rank: int
    rope_dim: int
    dtype: str = "bf16"
    kv_dtype: str = ""
    nope_dim: int = 128
    v_dim: int = 128
    causal: bool = True
    call: bool = False
    module: bool | None = None
    cache_share: float = 1.0

    def __post_init__(self) -> None:
        positive(self, "batch", "q_len", "kv_len", "heads", "kv_lora_rank", "rope_dim")
        if self.phase not in ("context", "generation"):
            raise UnsupportedError(f"latent_attention: phase is {self.phase!r}; expected context or generation")
        if self.causal and self.q_len > self.kv_len:
            raise UnsupportedError(f"latent_attention: q_len {self.q_len} exceeds kv_len {self.kv_len}")

    @property
    def equivalent(self) -> Attention:
        """The dense attention with the same products: MQA on the latent, or expanded MHA."""
        if self.phase == "generation":
            key, value, kv_heads = self.kv_lora_rank + self.rope_dim, self.kv_lora_rank, 1
        else:
            key, value, kv_heads = self.nope_dim + self.rope_dim, self.v_dim, self.heads
        return Attention(
            phase=self.phase,
            batch=self.batch,
            q_len=self.q_len,
            kv_len=self.kv_len,
            heads=self.heads,
            kv_heads=kv_heads,
            head_dim=key,
            value_dim=value,
            dtype=self.dtype,
            kv_dtype=self.kv_dtype,
            causal=self.causal,
            shared_value=self.phase == "generation",
        )

    def arithmetic(self) -> Arithmetic:
        """As the equivalent dense attention."""
        return self.equivalent.arithmetic()

    def accesses(self) -> tuple[Access, ...]:
        """Absorbed: q, the latent cache once (it is both key and value), the latent output. Expanded: q, k, v, out."""
        return self.equivalent.accesses()

    @property
    def cache_bytes(self) -> float:
        """Latent and rotary key of every token, shared by all heads."""
        width = self.kv_lora_rank + self.rope_dim
        return 1.0 * self.batch * self.kv_len * width * size_of(self.kv_dtype or self.dtype) * self.cache_share

    @property
    def saved_bytes(self) -> float:
        """As the equivalent dense attention."""
        return self.equivalent.saved_bytes

    def split(self, axis: str, degree: int) -> Operator:
        """``heads`` divide; the latent cache is copied to every device."""
        if axis == "heads":
            return replace(self, heads=divide(self.heads, degree, "heads", self.kind))
        if axis == "batch":
            return replace(self, batch=divide(self.batch, degree, "sequences", self.kind))
        raise UnsupportedError(f"latent_attention cannot be split by {axis!r}; expected heads or batch")

    def backward(self) -> tuple[Operator, ...]:
        """Backward of the expanded form."""
        return (AttentionBackward(replace(self, phase="context").equivalent),)


@dataclass(frozen=True, slots=True)
class KVAppend(Operator):
    """Writes the new tokens' keys and values into the cache: ``tokens`` rows of ``width`` elements."""

    kind: ClassVar[str] = "kv_append"
    tokens: int
    width: int
    dtype: str = "fp16"
    kv_dtype: str = ""

    def __post_init__(self) -> None:
        positive(self, "tokens", "width")

    def arithmetic(self) -> Arithmetic:
        """One conversion an element where the cache is stored narrower."""
        quantised = bool(self.kv_dtype) and self.kv_dtype != self.dtype
        return Arithmetic(vector=2.0 * self.tokens * self.width if quantised else 0.0)

    def accesses(self) -> tuple[Access, ...]:
        """Reads the projections, writes the cache."""
        elements = float(self.tokens) * self.width
        return (
            Access(Role.ACTIVATION, elements * size_of(self.dtype)),
            Access(Role.KV_CACHE, elements * size_of(self.kv_dtype or self.dtype), write=True),
        )

    def split(self, axis: str, degree: int) -> Operator:
        """``heads``: each device keeps its kv heads (at least one, hence the ceiling)."""
        if axis == "heads":
            return replace(self, width=max(1, -(-self.width // degree)))
        raise UnsupportedError(f"kv_append cannot be split by {axis!r}; expected heads")
