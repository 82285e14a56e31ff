"""From a workload to a program: degrees of parallelism (given, or the smallest that fit), and phases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..errors import DoesNotFitError, UnsupportedError
from ..graph.graph import Graph
from ..spec.architecture import ArchitectureSpec
from ..spec.engine import EngineSpec
from ..spec.workload import WorkloadSpec
from .builder import Builder, builder_of, degrees_of
from .engine import host_numbers, host_work, prompt_passes
from .fit import smallest_fit, why_not
from .memory import Capacity
from .parallel import check_degrees, in_stages, with_sharing
from .placement import check_groups, unused_rules
from .program import Degrees, Execution, Memory, Phase, Program
from .training_phase import step_executions


def needed_memory(workload: WorkloadSpec, engine: EngineSpec, capacity: Capacity, base: Path | None = None) -> Memory:
    """Memory of one device at the degrees that *workload* gives, whether it fits or not.

    Raises:
        UnsupportedError: the model cannot be divided as asked, or the workload leaves the degrees open.
    """
    builder = builder_of(workload, engine, capacity, base)
    if builder.workload.parallelism == "auto":
        raise UnsupportedError(f"{workload.name}: memory needs degrees of parallelism, not 'auto'")
    return builder.memory(degrees_of(builder.workload.parallelism))


def place(
    workload: WorkloadSpec,
    engine: EngineSpec,
    capacity: Capacity,
    base: Path | None = None,
    model: ArchitectureSpec | None = None,
) -> Program:
    """Place a workload on devices of one kind; *model* is its architecture, where it is loaded already.

    Raises:
        DoesNotFitError: it does not fit; says by how much and what would make it fit.
        UnsupportedError: the model cannot be divided as asked.
    """
    return placed(builder_of(workload, engine, capacity, base, model))


def placed(builder: Builder) -> Program:
    """The program that *builder* gives; raises as :func:`place` does."""
    workload, capacity = builder.workload, builder.capacity
    if workload.parallelism == "auto":
        degrees, memory, note = smallest_fit(builder)
    else:
        degrees = degrees_of(workload.parallelism)
        check_degrees(workload, builder.model, degrees, mixed=capacity.placement is not None)
        if degrees.devices > capacity.devices:
            raise DoesNotFitError(
                f"parallelism asks for {degrees.devices} devices; {capacity.device} joins at most {capacity.devices}"
            )
        memory, note = builder.memory(degrees), ""
        if not memory.fits:
            raise DoesNotFitError(why_not(builder, degrees, memory))
    notes: tuple[str, ...] = (note,) if note else ()
    if capacity.placement is not None:
        whole = builder.last_graph(replace(degrees, microbatches=1))
        notes += unused_rules(whole, capacity.placement)
        notes += check_groups(whole, capacity.placement, degrees.pipeline)
    return program_of(builder, degrees, memory, notes)


def program_of(builder: Builder, degrees: Degrees, memory: Memory, notes: tuple[str, ...] = ()) -> Program:
    """The program of a workload at *degrees*, with the *memory* that was found for them."""
    engine = builder.engine
    return Program(
        name=builder.workload.name,
        phases=_phases(builder, degrees),
        degrees=degrees,
        memory=memory,
        launch=engine.launch,
        fused_pointwise=engine.fused_pointwise,
        host=host_work(engine, builder.model),
        host_numbers=host_numbers(engine),
        notes=notes,
        folded=builder.ways.folded,
    )


StepGraph = Callable[[str, int, int, int, int], Graph]
"""(phase, batch, q_len, kv_len, logit_tokens) → what one device runs for such a step."""


def step_graphs(
    workload: WorkloadSpec, engine: EngineSpec, capacity: Capacity, degrees: Degrees, base: Path | None = None
) -> StepGraph:
    """Graphs of any step of a served model on one device, for the sequences and tokens of a whole replica.

    Data ranks divide them, and so do the microbatches that keep all pipeline stages busy, as many as stages: the graph
    goes through all stages, one after another, while the others are in theirs. A prompt's chunk divides as its average
    part: queries half way into it.

    Raises:
        UnsupportedError: the workload has no model whose steps could vary.
    """
    builder = builder_of(workload, engine, capacity, base)
    if builder.model is None:
        raise UnsupportedError(f"{workload.name}: a list of operators cannot be served; expected a 'model'")

    parts = degrees.data * degrees.pipeline

    def graph(phase: str, batch: int, q_len: int, kv_len: int, logits: int) -> Graph:
        if phase == "generation":
            batch = -(-batch // parts)
        else:
            own = -(-q_len // parts)
            q_len, kv_len, logits = own, kv_len - q_len + -(-(q_len + own) // 2), -(-logits // parts)
        return builder.graph(degrees, phase, q_len, kv_len, batch=batch, logits=logits)

    return graph


def _phases(builder: Builder, degrees: Degrees) -> tuple[Phase, ...]:
    w = builder.workload
    batch, prompt, new = int(w.batch), int(w.prompt), int(w.generate)
    if w.task == "training_step":
        return (_training(builder, degrees),)
    if w.task == "operators":
        graph = builder.graph(degrees, "context", prompt, prompt)
        return (Phase("step", (_inference(builder, graph, 1.0, degrees),), 1.0, 1.0, batch),)
    phases: list[Phase] = []
    if w.task in ("prefill", "generate"):
        passes = prompt_passes(builder.engine, degrees, builder.batch(degrees), prompt)
        runs = tuple(
            _inference(builder, builder.graph(degrees, "context", prompt, prompt, batch=size), float(times), degrees)
            for size, times in passes
        )
        steps, launch = float(sum(times for _, times in passes)), builder.engine.uncaptured or ""
        phases.append(Phase("prefill", runs, float(batch * prompt), steps, batch, launch=launch, prompts=True))
    if w.task in ("decode", "generate"):
        # The prefill itself yields the first token of a 'generate' run.
        made = new - 1 if w.task == "generate" else new
        captured = builder.engine.captured_batch(builder.batch(degrees))
        runs = tuple(
            _inference(builder, builder.token_graph(degrees, kv, captured or 0), weight, degrees, float(made))
            for kv, weight in samples(prompt + 1, made)
        )
        if runs:
            launch = "" if captured else builder.engine.uncaptured or "stream"
            phases.append(Phase("decode", runs, float(batch * made), float(made), batch, launch=launch))
    return tuple(phases)


def _inference(builder: Builder, graph: Graph, steps: float, degrees: Degrees, rounds: float = 1.0) -> Execution:
    """*steps* steps, each in microbatches that flow through the pipeline stages; *rounds* steps follow in a row.

    In a mixed system the microbatches take turns on its device groups instead.
    """
    pieces, copies = degrees.microbatches, degrees.stage_devices
    if builder.capacity.placement is not None:
        return Execution(graph, steps, copies, work=steps * pieces, interleave=pieces)
    if degrees.pipeline == 1:
        return Execution(graph, steps * pieces, copies, work=steps * pieces)
    stages = in_stages(graph, degrees.pipeline)
    return Execution(graph, steps, copies, work=steps * pieces, stages=stages, microbatches=pieces, rounds=rounds)


def samples(first: int, steps: int) -> list[tuple[int, float]]:
    """Cache lengths to evaluate, with weights that sum to *steps*: Simpson's rule, exact for cubics in the length."""
    last = first + steps - 1
    if steps <= 3:
        return [(kv, 1.0) for kv in range(first, last + 1)]
    return [(first, steps / 6), ((first + last) // 2, steps * 4 / 6), (last, steps / 6)]


def _training(builder: Builder, degrees: Degrees) -> Phase:
    w = builder.workload
    whole = builder.graph(degrees, "training", int(w.prompt), int(w.prompt))
    tokens, sequences = float(w.batch) * float(w.prompt), int(w.batch)
    plan, layout = builder.training_plan(degrees), builder.layout(degrees)
    runs = step_executions(whole, plan, layout, builder.capacity.inner_devices)
    algorithm = builder.ways.collectives
    runs = tuple(replace(run, graph=with_sharing(run.graph, degrees, algorithm)) for run in runs)
    return Phase("step", runs, tokens, 1.0, sequences)
