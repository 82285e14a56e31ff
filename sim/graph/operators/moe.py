"""Mixture of experts: the router and the routed experts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

from ...errors import UnsupportedError
from ..dtypes import size_of
from ..operator import Access, Arithmetic, Operator, Role, ceil_div, divide, positive
from .linear import weight_storage

INDEPENDENT = ("uniform", "")
"""Spellings of routing in which tokens choose among all experts independently."""


def expected_distinct_experts(tokens: int, experts: int, top_k: int) -> float:
    """Expected number of experts that at least one of *tokens* picks, under uniform independent routing.

    ``E·(1 − (1 − k/E)^T)``: a token misses a given expert with probability 1 − k/E.

    >>> expected_distinct_experts(1, 8, 2)
    2.0
    >>> round(expected_distinct_experts(4, 8, 2), 3)
    5.469
    """
    return experts * (1.0 - (1.0 - top_k / experts) ** tokens)


@dataclass(frozen=True, slots=True)
class TopK(Operator):
    """Scores to the ``top_k`` best of ``experts`` a token, with normalised weights (the router's softmax included)."""

    kind: ClassVar[str] = "moe_router"
    tokens: int
    experts: int
    top_k: int
    dtype: str = "fp32"

    def __post_init__(self) -> None:
        positive(self, "tokens", "experts", "top_k")

    def arithmetic(self) -> Arithmetic:
        """Softmax over the experts and ``top_k`` selection passes."""
        scores = float(self.tokens) * self.experts
        return Arithmetic(vector=(4.0 + self.top_k) * scores, special=scores)

    def accesses(self) -> tuple[Access, ...]:
        """Scores in, indices and weights out."""
        word = size_of(self.dtype)
        return (
            Access(Role.ACTIVATION, self.tokens * self.experts * word),
            Access(Role.ACTIVATION, self.tokens * self.top_k * (word + 4.0), write=True),
        )

    def split(self, axis: str, degree: int) -> Operator:
        """``tokens`` divide."""
        if axis == "tokens":
            return replace(self, tokens=ceil_div(self.tokens, degree))
        raise UnsupportedError(f"moe_router cannot be split by {axis!r}; expected tokens")

    def backward(self) -> tuple[Operator, ...]:
        """Same size."""
        return (self,)


@dataclass(frozen=True, slots=True)
class Experts(Operator):
    """Routed feed-forward experts on ``tokens`` tokens, ``top_k`` of ``experts`` each.

    Capacity counts the weights of *all* experts; traffic counts those of the *expected distinct* ones.
    ``gated`` experts have three matrices (gate, up, down), others two. ``local`` < ``experts`` holds only a share of
    the experts on this device (expert parallelism); ``tokens`` then still counts the tokens routed over all of them.
    """

    kind: ClassVar[str] = "moe"
    tokens: int
    hidden: int
    intermediate: int
    experts: int
    top_k: int
    dtype: str = "bf16"
    weight_dtype: str = ""
    group_size: int = 0
    gated: bool = True
    distribution: str = "uniform"
    local: int = 0
    activation: str = "silu"

    def __post_init__(self) -> None:
        positive(self, "tokens", "hidden", "intermediate", "experts", "top_k")
        if self.top_k > self.experts:
            raise UnsupportedError(f"moe: top_k {self.top_k} exceeds the {self.experts} experts")

    @property
    def held(self) -> int:
        """Experts whose weights this device holds."""
        return self.local or self.experts

    @property
    def matrices(self) -> int:
        """Weight matrices of one expert."""
        return 3 if self.gated else 2

    @property
    def expert_elements(self) -> float:
        """Weights of one expert."""
        return float(self.matrices) * self.hidden * self.intermediate

    @property
    def assignments(self) -> float:
        """Expected (token, expert) pairs on this device."""
        return _routed(self.distribution, self.tokens, self.experts, self.held, self.top_k)[0]

    @property
    def active_experts(self) -> float:
        """Expected distinct experts used on this device, under its routing distribution."""
        return _routed(self.distribution, self.tokens, self.experts, self.held, self.top_k)[1]

    def used_share(self, probability: float) -> float:
        """Expected share of the time that an expert with this pick probability has a token at all."""
        if self.distribution in INDEPENDENT or self.distribution.startswith("zipf"):
            return 1.0 - (1.0 - probability) ** self.tokens
        return min(1.0, self.tokens * probability)  # exact shares: a load below one token is one now and then

    def pick_probabilities(self) -> list[float]:
        """Probability that a token picks each held expert (they sum to top_k · held / experts).

        ``uniform``: tokens choose independently, all experts alike. ``zipf_<alpha>``: likewise, the expert of rank r
        in proportion to r^−alpha. ``balanced``: every expert gets its exact share. ``power_law_<alpha>``: loads are
        exact shares too, spread as the density x^−alpha between one token and 0.8 of all (between 0.01 and 2 where
        there are fewer picks than experts): the routing that ai-dynamo/aiconfigurator measures with. No expert
        gets a token twice.

        Raises:
            UnsupportedError: unknown distribution.
        """
        if self.distribution in INDEPENDENT or self.distribution == "balanced":
            return [self.top_k / self.experts] * self.held
        crowded = self.tokens * self.top_k > self.experts
        shares = _skewed_shares(self.distribution, self.experts, self.top_k, 0.8 * self.tokens if crowded else 0.0)
        stride = self.experts // self.held
        return list(shares[::stride][: self.held])

    def arithmetic(self) -> Arithmetic:
        """2 FLOP a weight and assigned token; the activation and the weighted sum are vector work."""
        rows = self.assignments
        vector = rows * (4.0 * self.intermediate + 2.0 * self.hidden)
        return Arithmetic(
            matrix=2.0 * rows * self.expert_elements, vector=vector, special=2.0 * rows * self.intermediate
        )

    def accesses(self) -> tuple[Access, ...]:
        """Weights of the expected distinct experts; every assigned token's row in and out."""
        word = size_of(self.dtype)
        weights = weight_storage(self.expert_elements * self.active_experts, self.stored_dtype, self.group_size)
        rows = self.assignments
        return (
            Access(Role.ACTIVATION, min(rows, float(self.tokens)) * self.hidden * word),
            Access(Role.WEIGHT, weights),
            Access(Role.ACTIVATION, min(rows, float(self.tokens)) * self.hidden * word, write=True),
        )

    @property
    def stored_dtype(self) -> str:
        """Type of the weights in memory."""
        return self.weight_dtype or self.dtype

    @property
    def parameters(self) -> int:
        """Weights of all held experts, active or not."""
        return self.held * self.matrices * self.hidden * self.intermediate

    @property
    def weight_bytes(self) -> float:
        """Bytes of all held experts."""
        return weight_storage(float(self.parameters), self.stored_dtype, self.group_size)

    @property
    def saved_bytes(self) -> float:
        """Routed inputs and the intermediate rows."""
        return self.assignments * (self.hidden + self.matrices * self.intermediate) * size_of(self.dtype)

    def split(self, axis: str, degree: int) -> Operator:
        """``column``/``tensor`` divides every expert's width, ``expert`` the set of experts."""
        if axis in ("column", "tensor"):
            return replace(self, intermediate=ceil_div(self.intermediate, degree))
        if axis == "expert":
            return replace(self, local=divide(self.held, degree, "experts", self.kind))
        raise UnsupportedError(f"moe cannot be split by {axis!r}; expected tensor or expert")

    def backward(self) -> tuple[Operator, ...]:
        """Twice the products of the forward: input and weight gradients."""
        return (ExpertsBackward(self),)


@dataclass(frozen=True, slots=True)
class ExpertsBackward(Operator):
    """Gradients of routed experts: twice the forward's products; weights read, weight gradients written."""

    kind: ClassVar[str] = "moe_backward"
    forward: Experts

    def arithmetic(self) -> Arithmetic:
        """Two products where the forward has one."""
        return self.forward.arithmetic() * 2.0

    def accesses(self) -> tuple[Access, ...]:
        """Saved rows and weights in; input and weight gradients out."""
        f = self.forward
        touched = f.expert_elements * f.active_experts * size_of(f.dtype)
        return (
            Access(Role.ACTIVATION, f.saved_bytes),
            Access(Role.WEIGHT, touched),
            Access(Role.ACTIVATION, f.assignments * f.hidden * size_of(f.dtype), write=True),
            Access(Role.GRADIENT, touched, write=True),
        )


@lru_cache(maxsize=8192)
def _routed(distribution: str, tokens: int, experts: int, held: int, top_k: int) -> tuple[float, float]:
    """Expected (token, expert) pairs and distinct experts on a device that holds *held* of them."""
    op = Experts(tokens, 1, 1, experts, top_k, distribution=distribution, local=held)
    shares = op.pick_probabilities()
    return tokens * sum(shares), sum(op.used_share(p) for p in shares)


@lru_cache(maxsize=4096)
def _skewed_shares(distribution: str, experts: int, top_k: int, most: float) -> tuple[float, ...]:
    """Shares of the experts, largest first. *most* > 0: the largest load of a power law in tokens."""
    name, _, word = distribution.rpartition("_")
    try:
        alpha = float(word)
    except ValueError:
        alpha = -1.0
    if name not in ("power_law", "zipf") or not 0.0 <= alpha < 100.0:
        raise UnsupportedError(
            f"moe: distribution {distribution!r}; expected uniform, balanced, power_law_<alpha> or zipf_<alpha>"
        )
    if name == "zipf":
        weights = [rank**-alpha for rank in range(1, experts + 1)]
    else:
        low, high = (1.0, max(most, 1.0)) if most else (0.01, 2.0)
        levels = [1.0 - (i + 0.5) / experts for i in range(experts)]  # middle of each expert's quantile
        if abs(alpha - 1.0) < 1e-9:
            weights = [low * (high / low) ** u for u in levels]
        else:
            a, b = low ** (1.0 - alpha), high ** (1.0 - alpha)
            weights = [(a + u * (b - a)) ** (1.0 / (1.0 - alpha)) for u in levels]
    return tuple(_capped_shares(weights, top_k))


def _capped_shares(weights: list[float], total: int) -> list[float]:
    """Shares proportional to *weights* that sum to *total* with none above 1 (a token picks an expert once)."""
    shares = [0.0] * len(weights)
    free = list(range(len(weights)))
    left = float(total)
    while free:
        mass = sum(weights[i] for i in free)
        over = [i for i in free if left * weights[i] / mass >= 1.0]
        if not over:
            for i in free:
                shares[i] = left * weights[i] / mass
            break
        for i in over:
            shares[i] = 1.0
        left -= len(over)
        free = [i for i in free if i not in set(over)]
    return shares
