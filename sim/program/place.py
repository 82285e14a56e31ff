"""From a workload to a program: degrees of parallelism (given, or the smallest that fit), phases, memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import DoesNotFitError, UnsupportedError
from ..graph.dtypes import size_of
from ..graph.graph import Graph
from ..spec.architecture import ArchitectureSpec
from ..spec.engine import EngineSpec
from ..spec.workload import Parallelism, WorkloadSpec
from ..transforms.context import ContextRanks, context_parallel, local_tokens
from ..transforms.engine import as_engine, narrow_products
from ..transforms.forward import ForwardForm, beside_products, sequence_parallel, training_forward
from ..transforms.fusion import fuse_residual_norm
from ..transforms.sequence import divide_tokens
from ..transforms.shard import shard
from ..transforms.training import TrainingPlan, with_library
from ..units import format_quantity
from .engine import engine_kernels, host_numbers, host_work, prompt_passes
from .memory import Capacity, inference_memory
from .parallel import check_degrees, in_stages, route, with_sends, with_sharing
from .placement import assign, check_groups, group_degrees, home_only, unused_rules, with_transfers, wrap
from .program import Degrees, Execution, Memory, Phase, Program
from .source import explicit_graph, load_model, model_graph, truncated
from .training_memory import TrainingLayout, pipeline_memory
from .training_phase import step_executions

MOST_DEVICES = 1024
"""Up to how many devices a remedy is looked for."""


@dataclass(frozen=True)
class Builder:
    """One workload on one kind of device, for any degrees."""

    workload: WorkloadSpec
    engine: EngineSpec
    model: ArchitectureSpec | None
    capacity: Capacity

    def batch(self, degrees: Degrees) -> int:
        """Sequences of one pass on one data rank."""
        return -(-int(self.workload.batch) // (degrees.data * degrees.microbatches))

    def graph(
        self,
        degrees: Degrees,
        phase: str,
        q_len: int,
        kv_len: int,
        *,
        batch: int = 0,
        padded: int = 0,
        logits: int = 1,
    ) -> Graph:
        """The graph that one device of a tensor group runs, of *batch* sequences instead of all where that is given.

        *padded* > 0 is the batch of the captured graph that it is; *logits* how many tokens of a sequence get logits.
        """
        real, w = batch or self.batch(degrees), self.workload
        own_tokens = local_tokens(q_len, degrees.context)
        if self.model is None:
            whole = explicit_graph(w)
        else:
            whole = model_graph(self.model, w, phase, padded or real, own_tokens, kv_len, min(logits, own_tokens))
        whole = route(whole, w.routing)
        if self.engine.fused_residual_norm and phase != "training":
            whole = fuse_residual_norm(whole)
        if self.engine.narrow_products != "none" and phase != "training":
            whole = narrow_products(whole, self.engine.narrow_products == "separate")
        if phase == "training":
            whole = training_forward(whole, self.form())
            if self.workload.training.sequence_parallel:
                copies = self.workload.training.sequence_copies
                whole = sequence_parallel(whole, degrees.tensor, ordered=copies)
        placement, ways = self.capacity.placement, self.ways
        if placement is not None:
            whole = with_transfers(assign(whole, placement), placement.home)
        if ways.sequence and phase != "training":
            whole = divide_tokens(whole, degrees.tensor)
        stride = degrees.tensor * degrees.context
        part = shard(whole, degrees.tensor, degrees.expert, degrees.data, group_degrees(placement), stride)
        if placement is not None:
            part = wrap(part)
        ring = ways.context_exchange == "ring"
        part = context_parallel(part, ContextRanks(degrees.context, degrees.tensor, q_len, ring))
        if phase == "training":
            part = with_library(part)
            return beside_products(part) if self.workload.training.overlap_tensor else part
        part = as_engine(part, engine_kernels(self.engine, real if padded not in (0, real) else 0))
        return with_sharing(with_sends(part, degrees, self.capacity.inner_devices), degrees, ways.collectives)

    def token_graph(self, degrees: Degrees, kv_len: int, padded: int = 0) -> Graph:
        """The graph of a decoding step with *kv_len* keys; *padded* as for :meth:`graph`."""
        return self.graph(degrees, "generation", 1, kv_len, padded=padded)

    @property
    def ways(self) -> Parallelism:
        """The workload's parallelism; defaults where its degrees are open."""
        given = self.workload.parallelism
        return Parallelism() if given == "auto" else given

    def memory(self, degrees: Degrees) -> Memory:
        """Fullest moment on one device."""
        w = self.workload
        if w.task == "training_step":
            forward = self.graph(degrees, "training", int(w.prompt), int(w.prompt))
            return pipeline_memory(forward, self.training_plan(degrees), self.capacity, self.layout(degrees))
        # Caches of all microbatches are resident together; activations are those of one.
        whole = home_only(self.last_graph(replace(degrees, microbatches=1)))
        if w.task in ("operators", "prefill", "generate"):
            widest = self.graph(degrees, "context", int(w.prompt), int(w.prompt))
        else:
            widest = self.token_graph(degrees, int(w.prompt) + int(w.generate))
        return inference_memory(whole, self.capacity, degrees.pipeline, home_only(widest))

    def last_graph(self, degrees: Degrees) -> Graph:
        """The graph of the step after which caches are fullest."""
        w = self.workload
        if w.task in ("operators", "prefill"):
            return self.graph(degrees, "context", int(w.prompt), int(w.prompt))
        if w.task == "training_step":
            return self.graph(degrees, "training", int(w.prompt), int(w.prompt))
        return self.token_graph(degrees, int(w.prompt) + int(w.generate))

    def form(self) -> ForwardForm:
        """How the framework writes the forward pass."""
        t = self.workload.training
        return ForwardForm(
            fused_projections=t.fused_projections,
            fused_loss=t.fused_loss,
            dropout=t.dropout,
            attention_kernel=t.attention_kernel,
            float8=t.float8,
            dtype=self.workload.precision.activations,
        )

    def layout(self, degrees: Degrees) -> TrainingLayout:
        """How a training step is spread over pipeline stages."""
        stages = int(self.workload.training.virtual_stages)
        return TrainingLayout(degrees, stages, self.engine.fused_pointwise)

    def training_plan(self, degrees: Degrees) -> TrainingPlan:
        """Training choices of the workload with the data ranks of *degrees*."""
        t = self.workload.training
        return TrainingPlan(
            optimizer=t.optimizer,
            master_weights=t.master_weights,
            recompute=t.recompute,
            zero=t.zero,
            data=degrees.data,
            data_stride=degrees.tensor,
            gradient_dtype=t.gradient_dtype,
            dtype=self.workload.precision.activations,
            reduce_dtype=t.reduce_dtype or "",
            recompute_stops=t.recompute_stops,
            reshard=t.reshard,
            fused_optimizer=t.fused_optimizer,
            clip=t.clip_gradients,
            accumulate_whole=t.accumulate_whole,
            working_copy=t.working_copy,
        )


def needed_memory(workload: WorkloadSpec, engine: EngineSpec, capacity: Capacity, base: Path | None = None) -> Memory:
    """Memory of one device at the degrees that *workload* gives, whether it fits or not.

    Raises:
        UnsupportedError: the model cannot be divided as asked, or the workload leaves the degrees open.
    """
    builder = builder_of(workload, engine, capacity, base)
    if builder.workload.parallelism == "auto":
        raise UnsupportedError(f"{workload.name}: memory needs degrees of parallelism, not 'auto'")
    return builder.memory(degrees_of(builder.workload.parallelism))


def degrees_of(p: Parallelism) -> Degrees:
    """Degrees that a workload gives."""
    return Degrees(int(p.tensor), int(p.pipeline), int(p.data), int(p.expert), int(p.microbatches), int(p.context))


def builder_of(
    workload: WorkloadSpec,
    engine: EngineSpec,
    capacity: Capacity,
    base: Path | None,
    known: ArchitectureSpec | None = None,
) -> Builder:
    """What builds the graphs of a workload; *known* is its model, where it is loaded already."""
    model = None
    if workload.model is not None:
        layers = None if workload.layers is None else int(workload.layers)
        model = truncated(known or load_model(workload.model, base), layers)
    if model is not None and model.patches is not None:
        workload = _image_tokens(workload, model, model.patches.tokens)
    if workload.attention is None and not engine.fused_attention:
        workload = workload.model_copy(update={"attention": "unfused"})
    return Builder(workload, engine, model, capacity)


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
        degrees, memory, note = _smallest_fit(builder)
    else:
        degrees = degrees_of(workload.parallelism)
        check_degrees(workload, builder.model, degrees, mixed=capacity.placement is not None)
        if degrees.devices > capacity.devices:
            raise DoesNotFitError(
                f"parallelism asks for {degrees.devices} devices; {capacity.device} joins at most {capacity.devices}"
            )
        memory, note = builder.memory(degrees), ""
        if not memory.fits:
            raise DoesNotFitError(_why_not(builder, degrees, memory))
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


def _image_tokens(workload: WorkloadSpec, model: ArchitectureSpec, tokens: int) -> WorkloadSpec:
    """The workload with as many tokens a sequence as an image has patches.

    Raises:
        UnsupportedError: it asks for another number.
    """
    if "prompt" in workload.model_fields_set and int(workload.prompt) != tokens:
        raise UnsupportedError(f"{model.name}: an image has {tokens} tokens; leave out prompt {workload.prompt}")
    return workload.model_copy(update={"prompt": tokens})


def candidates(capacity: Capacity) -> Iterator[Degrees]:
    """Tensor degrees inside the innermost level first, then pipelines over several of them."""
    tensor = 1
    while tensor <= capacity.inner_devices:
        yield Degrees(tensor=tensor)
        tensor *= 2
    widest = tensor // 2
    pipeline = 2
    while widest * pipeline <= capacity.devices:
        yield Degrees(tensor=widest, pipeline=pipeline)
        pipeline *= 2


def _smallest_fit(builder: Builder) -> tuple[Degrees, Memory, str]:
    best: tuple[Degrees, Memory] | None = None
    alone: Memory | None = None
    for degrees in candidates(builder.capacity):
        try:
            memory = builder.memory(degrees)
        except UnsupportedError:
            if alone is None:
                raise
            continue
        alone = alone or memory
        best = (degrees, memory)
        if memory.fits:
            return degrees, memory, _fit_note(builder, degrees, alone)
    assert best is not None
    raise DoesNotFitError(_why_not(builder, *best))


def _fit_note(builder: Builder, degrees: Degrees, alone: Memory) -> str:
    if degrees.devices == 1:
        return ""
    need, have = _bytes(alone.used_bytes), _bytes(alone.capacity_bytes)
    ways = " × ".join(f"{name} {n}" for name, n in degrees.shown().items() if n > 1)
    return (
        f"{need} do not fit the {have} of one {builder.capacity.device}: "
        f"sharded over {degrees.devices} devices ({ways}), the smallest that fits"
    )


def _why_not(builder: Builder, degrees: Degrees, memory: Memory) -> str:
    over = memory.used_bytes - memory.capacity_bytes
    parts = ", ".join(f"{name} {_bytes(size)}" for name, size in memory.parts().items())
    head = (
        f"{builder.workload.name} does not fit {degrees.devices} × {builder.capacity.device}: "
        f"{_bytes(memory.used_bytes)} a device of {_bytes(memory.capacity_bytes)}, {_bytes(over)} too much ({parts})"
    )
    remedies = _remedies(builder, degrees)
    return f"{head}; would fit with {', or '.join(remedies)}" if remedies else f"{head}; no single change makes it fit"


def _remedies(builder: Builder, degrees: Degrees) -> list[str]:
    """Single changes that make the workload fit, each checked with the same memory model."""
    w = builder.workload
    out: list[str] = []

    def fits(changed: WorkloadSpec, capacity: Capacity | None = None, d: Degrees = degrees) -> bool:
        try:
            return replace(builder, workload=changed, capacity=capacity or builder.capacity).memory(d).fits
        except UnsupportedError:
            return False

    word = size_of(w.precision.weights or w.precision.activations)
    if w.model is not None and w.task != "training_step":
        for name in ("int8", "int4"):  # weight-only types that every device can store and widen
            precision = w.precision.model_copy(update={"weights": name, "group_size": 128 if name == "int4" else 0})
            if size_of(name) < word and fits(w.model_copy(update={"precision": precision})):
                out.append(f"{name} weights (precision.weights: {name})")
                break
    image = builder.model is not None and builder.model.patches is not None
    shorter = 0 if image else _largest(lambda n: fits(w.model_copy(update={"prompt": n})), int(w.prompt))
    if shorter:
        out.append(f"a prompt of at most {shorter} tokens")
    fewer = _largest(lambda n: fits(w.model_copy(update={"batch": n})), int(w.batch))
    if fewer:
        out.append(f"a batch of at most {fewer}")
    if w.task == "training_step":
        out += _training_remedies(builder, degrees)
    more = _more_devices(builder, degrees)
    if more is not None:
        ways = ", ".join(f"{name} {n}" for name, n in more.shown().items())
        joined = builder.capacity.devices
        beyond = f", more than the {joined} that are joined here" if more.devices > joined else ""
        out.append(f"{more.devices} devices ({ways}{beyond})")
    return out


def _training_remedies(builder: Builder, degrees: Degrees) -> list[str]:
    """Recomputation and ZeRO, where they make a training step fit."""
    w, out = builder.workload, list[str]()
    options: list[dict[str, object]] = [{"recompute": "full"}]
    if degrees.data > 1:
        options += [{"zero": 1}, {"zero": 3}, {"zero": 3, "recompute": "full"}]
    for option in options:
        changed = w.model_copy(update={"training": w.training.model_copy(update=option)})
        if replace(builder, workload=changed).memory(degrees).fits:
            out.append(" and ".join(f"training.{name}: {value}" for name, value in option.items()))
            break
    return out


def _more_devices(builder: Builder, degrees: Degrees) -> Degrees | None:
    """Smallest degrees with more devices that would hold the workload; None if none up to 1024 devices."""
    for factor in (2, 4, 8, 16, 32, 64, 128):
        for grown in (
            replace(degrees, tensor=degrees.tensor * factor),
            replace(degrees, pipeline=degrees.pipeline * factor),
        ):
            try:
                if grown.devices <= MOST_DEVICES and builder.memory(grown).fits:
                    return grown
            except UnsupportedError:
                continue
    return None


def _largest(fits: Callable[[int], bool], limit: int) -> int:
    """Largest whole number below *limit* that fits; 0 if none (bisection: memory grows with it)."""
    low, high = 0, limit
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


def _bytes(size: float) -> str:
    """Memory sizes read in GiB, as device memories are built and reported."""
    return f"{size / 2**30:.3g} GiB" if size >= 2**28 else format_quantity(size, "bytes")


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
