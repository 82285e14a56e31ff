"""How a replica forms steps, and what it counts while it does."""

from __future__ import annotations

from dataclasses import dataclass, field

from .speculation import Acceptance
from .tiers import TierPlan

POLICIES = ("static", "continuous", "chunked", "prefill_first", "decode_first")


@dataclass(frozen=True, slots=True)
class Scheduling:
    """How requests become steps.

    Attributes:
        policy: ``static`` runs a batch to its end before the next; ``continuous`` adds whole prompts to the steps of
            those that generate; ``chunked`` does so in pieces; ``prefill_first`` runs whole prompts in steps of their
            own before anything generates on; ``decode_first`` adds pieces only as large as keep a step within
            ``step_target_s``.
        order: ``fcfs`` or ``priority`` (then by arrival).
        most_sequences, most_tokens: limits of a step.
        preemption: what happens to the youngest sequence when pages run out: ``recompute`` or ``swap``.
        acceptance: of drafted tokens, where decoding is speculative.
        tiers: where blocks go that the device has no room for. A sequence is swapped to the first of them while there
            is room, else computed again.
        state_swap_s: seconds to move the states of a sequence's recurrent layers to the host's memory or back.
        blocking_fetch: steps wait for blocks that are fetched from a tier; else only the request does.
        plans_ahead: the scheduler plans a step when the one before it starts, beside the device: a request that
            arrives meanwhile joins the step after.
        on_the_way_s: what a request spends outside the engine, before it gets there and after its first token.
    """

    policy: str = "chunked"
    order: str = "fcfs"
    most_sequences: int = 256
    most_tokens: int = 2048
    preemption: str = "recompute"
    step_target_s: float = 0.05
    acceptance: Acceptance | None = None
    tiers: tuple[TierPlan, ...] = ()
    blocking_fetch: bool = False
    state_swap_s: float = 0.0
    plans_ahead: bool = False
    on_the_way_s: float = 0.0


@dataclass(slots=True)
class Tally:
    """What one replica did."""

    busy_s: float = 0.0
    steps: int = 0
    prompt_steps: int = 0
    """Steps that read prompts."""
    sequence_steps: int = 0
    """Steps times the sequences that generated in each."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    recomputed_tokens: int = 0
    preemptions: int = 0
    drafted: int = 0
    accepted: int = 0
    fetched_tokens: int = 0
    tokens: int = 0
    """Generated."""
    most_pages: int = 0
    """In use at once; the history, of which entries are left out, may miss it."""
    gaps: dict[int, int] = field(default_factory=dict)
    """Tokens by the time since the one before, in whole microseconds."""
    history: list[tuple[float, int, int, int]] = field(default_factory=list)
    """(time, waiting, running, pages in use) after each event."""
