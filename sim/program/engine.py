"""What an engine profile means for a program: its kernels, and its host work as plain floats."""

from __future__ import annotations

from collections.abc import Sequence

from ..spec.architecture import ArchitectureSpec, LayerRun
from ..spec.engine import EngineSpec
from ..transforms.engine import EngineKernels
from .program import Degrees, HostNumber, HostWork


def engine_kernels(engine: EngineSpec, batch: int) -> EngineKernels:
    """What the engine runs in place of a graph's own kernels; *batch*: real sequences of a padded step, else 0."""
    return EngineKernels(
        unfused_context=engine.context_attention == "unfused",
        per_head=int(engine.per_head_attention or 0),
        writes_cache=engine.attention_writes_cache,
        nccl=engine.collectives == "nccl",
        sampling_passes=int(engine.sampling_passes),
        batch=batch,
    )


def prompt_passes(engine: EngineSpec, degrees: Degrees, batch: int, prompt: int) -> list[tuple[int, int]]:
    """(sequences, times) of the passes that take in *batch* prompts: as many at a time as the engine allows.

    Microbatches of a pipeline are smaller anyway and stay as they are.
    """
    if engine.prompt_tokens is None or degrees.microbatches > 1:
        return [(batch, 1)]
    size = min(batch, max(1, int(engine.prompt_tokens) // prompt))
    full, rest = divmod(batch, size)
    return [(size, full), (rest, 1)] if rest else [(size, full)]


def host_work(engine: EngineSpec, model: ArchitectureSpec | None) -> HostWork:
    """Host times of the engine; a list of operators has no layers."""
    return HostWork(
        dispatch_s=None if engine.dispatch is None else float(engine.dispatch),
        collective_start_s=_seconds(engine.collective_start),
        layers=0 if model is None else layers_of(model.layers),
        per_layer_s=_seconds(engine.host_per_layer),
        per_step_s=_seconds(engine.host_per_step),
        per_sequence_s=_seconds(engine.host_per_sequence),
        per_request_s=_seconds(engine.host_per_request),
        per_prompt_pass_s=_seconds(engine.host_per_prompt_pass),
        per_arrival_s=_seconds(engine.host_per_arrival),
        asynchronous=engine.asynchronous,
    )


def host_numbers(engine: EngineSpec) -> tuple[HostNumber, ...]:
    """Every host time of the profile with its origin, for the list of what a result leans on."""
    found = []
    for path, leaf in engine.leaves():
        if path in ("dispatch", "collective_start") or path.startswith("host_per_"):
            found.append(HostNumber(path, float(leaf), leaf.kind or "assumed", leaf.source or ""))
    return tuple(found)


def layers_of(runs: Sequence[LayerRun]) -> int:
    """Layers of a model, runs inside runs multiplied out."""
    return sum(int(run.repeat) * (1 if run.layers is None else layers_of(run.layers)) for run in runs)


def _seconds(value: float | None) -> float:
    return float(value or 0.0)
