"""Token ends of a language model: embedding lookup, sampling, training loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ...errors import UnsupportedError
from ..dtypes import size_of
from ..operator import Access, Arithmetic, Operator, Role, ceil_div, positive


@dataclass(frozen=True, slots=True)
class Embedding(Operator):
    """Gathers ``tokens`` rows of ``width`` from a table of ``vocabulary`` rows; traffic is the rows touched."""

    kind: ClassVar[str] = "embedding"
    tokens: int
    vocabulary: int
    width: int
    dtype: str = "fp16"

    def __post_init__(self) -> None:
        positive(self, "tokens", "vocabulary", "width")

    def arithmetic(self) -> Arithmetic:
        """None: a gather."""
        return Arithmetic()

    def accesses(self) -> tuple[Access, ...]:
        """Rows in and out, at most the whole table in."""
        word = size_of(self.dtype)
        rows = min(self.tokens, self.vocabulary)
        return (
            Access(Role.WEIGHT, float(rows) * self.width * word),
            Access(Role.ACTIVATION, float(self.tokens) * self.width * word, write=True),
        )

    @property
    def row_bytes(self) -> float:
        """Bytes of one row: contiguous, at a random place."""
        return self.width * size_of(self.dtype)

    @property
    def parameters(self) -> int:
        """The table."""
        return self.vocabulary * self.width

    @property
    def weight_bytes(self) -> float:
        """Bytes of the table."""
        return self.parameters * size_of(self.dtype)

    @property
    def saved_bytes(self) -> float:
        """Token indices only."""
        return 4.0 * self.tokens

    def split(self, axis: str, degree: int) -> Operator:
        """``vocab`` divides the rows of the table (missing rows are zero, an all-reduce adds)."""
        if axis == "vocab":
            return replace(self, vocabulary=ceil_div(self.vocabulary, degree))
        raise UnsupportedError(f"embedding cannot be split by {axis!r}; expected vocab")

    def backward(self) -> tuple[Operator, ...]:
        """Scatter-add of the rows' gradients."""
        return (EmbeddingBackward(self.tokens, self.width, self.dtype),)


@dataclass(frozen=True, slots=True)
class EmbeddingBackward(Operator):
    """Adds ``tokens`` gradient rows into the table's gradient."""

    kind: ClassVar[str] = "embedding_backward"
    tokens: int
    width: int
    dtype: str = "fp16"

    def arithmetic(self) -> Arithmetic:
        """One addition an element."""
        return Arithmetic(vector=float(self.tokens) * self.width)

    def accesses(self) -> tuple[Access, ...]:
        """Rows in, table rows read and written."""
        size = float(self.tokens) * self.width * size_of(self.dtype)
        return (Access(Role.ACTIVATION, size), Access(Role.GRADIENT, size), Access(Role.GRADIENT, size, write=True))


@dataclass(frozen=True, slots=True)
class Sampling(Operator):
    """Picks the next token of ``rows`` sequences from ``vocabulary`` logits: softmax, top-k/top-p selection, draw.

    ``passes``: kernels that go over the logits one after another; the first alone is the work that must be done.
    """

    kind: ClassVar[str] = "sampling"
    rows: int
    vocabulary: int
    dtype: str = "fp32"
    passes: int = 3

    def __post_init__(self) -> None:
        positive(self, "rows", "vocabulary", "passes")

    def arithmetic(self) -> Arithmetic:
        """Softmax (4 + 1 exponential) and a selection pass a logit."""
        logits = float(self.rows) * self.vocabulary
        return Arithmetic(vector=6.0 * logits, special=logits)

    def accesses(self) -> tuple[Access, ...]:
        """Logits in, tokens out."""
        return (
            Access(Role.ACTIVATION, float(self.rows) * self.vocabulary * size_of(self.dtype)),
            Access(Role.ACTIVATION, 4.0 * self.rows, write=True),
        )


@dataclass(frozen=True, slots=True)
class CrossEntropy(Operator):
    """Training loss over ``rows`` × ``vocabulary`` logits: log-softmax and the negative log-likelihood.

    ``logits_dtype``: type in which the output head leaves them, if another: they are widened by a pass of its own, and
    their gradient narrowed by another. ``in_place``: one kernel reads the logits as they come, and one writes their
    gradient in their place.
    """

    kind: ClassVar[str] = "cross_entropy"
    rows: int
    vocabulary: int
    dtype: str = "fp32"
    logits_dtype: str = ""
    in_place: bool = False

    def __post_init__(self) -> None:
        positive(self, "rows", "vocabulary")

    @property
    def _logit_bytes(self) -> float:
        return float(self.rows) * self.vocabulary * size_of(self.dtype)

    def arithmetic(self) -> Arithmetic:
        """Maximum, subtract, sum, log; one exponential."""
        logits = float(self.rows) * self.vocabulary
        return Arithmetic(vector=4.0 * logits, special=logits)

    def accesses(self) -> tuple[Access, ...]:
        """Logits in, log-probabilities (in place: a loss a row) out."""
        if self.in_place:
            return (Access(Role.ACTIVATION, self._logit_bytes), Access(Role.ACTIVATION, 4.0 * self.rows, write=True))
        return (
            Access(Role.ACTIVATION, self._logit_bytes + self.arriving_bytes),
            Access(Role.ACTIVATION, self._logit_bytes * (2.0 if self.logits_dtype else 1.0), write=True),
        )

    @property
    def arriving_bytes(self) -> float:
        """Bytes of the logits in the type of the output head, where that is another one."""
        return float(self.rows) * self.vocabulary * size_of(self.logits_dtype) if self.logits_dtype else 0.0

    @property
    def saved_bytes(self) -> float:
        """The log-probabilities (in place: the logits), and nothing else of that size."""
        return self._logit_bytes

    @property
    def gradient_bytes(self) -> float:
        """Bytes that appear at the start of the backward pass beside what is saved.

        Not in place: the gradient of the log-probabilities, nearly all of it zeros, and that of the logits.
        """
        return 0.0 if self.in_place else 2.0 * self._logit_bytes

    def split(self, axis: str, degree: int) -> Operator:
        """``vocab`` divides the logits."""
        if axis == "vocab":
            return replace(self, vocabulary=ceil_div(self.vocabulary, degree))
        raise UnsupportedError(f"cross_entropy cannot be split by {axis!r}; expected vocab")

    def backward(self) -> tuple[Operator, ...]:
        """softmax − one-hot."""
        return (CrossEntropyBackward(self),)


@dataclass(frozen=True, slots=True)
class CrossEntropyBackward(Operator):
    """Gradient of the logits: softmax − one-hot."""

    kind: ClassVar[str] = "cross_entropy_backward"
    forward: CrossEntropy

    def arithmetic(self) -> Arithmetic:
        """An exponential, a subtraction and a multiply a logit."""
        logits = float(self.forward.rows) * self.forward.vocabulary
        return Arithmetic(vector=3.0 * logits, special=logits)

    def accesses(self) -> tuple[Access, ...]:
        """What is saved in, gradients out; not in place also the dense gradient of the log-probabilities, out and in.

        Where the head works in another type, the gradient is read once more and written in that type.
        """
        f = self.forward
        size = f.saved_bytes
        if f.in_place:
            return (Access(Role.ACTIVATION, size), Access(Role.ACTIVATION, size, write=True))
        cast = size if f.logits_dtype else 0.0
        return (
            Access(Role.ACTIVATION, 2.0 * size + cast),
            Access(Role.ACTIVATION, 2.0 * size + f.arriving_bytes, write=True),
        )
