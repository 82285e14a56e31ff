"""The graphs of one workload on one kind of device, and their memory, for any degrees of parallelism."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import UnsupportedError
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
from .engine import engine_kernels
from .memory import Capacity, inference_memory
from .parallel import route, with_sends, with_sharing
from .placement import assign, group_degrees, home_only, with_transfers, wrap
from .program import Degrees, Memory
from .source import explicit_graph, load_model, model_graph, truncated
from .training_memory import TrainingLayout, pipeline_memory


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


def _image_tokens(workload: WorkloadSpec, model: ArchitectureSpec, tokens: int) -> WorkloadSpec:
    """The workload with as many tokens a sequence as an image has patches.

    Raises:
        UnsupportedError: it asks for another number.
    """
    if "prompt" in workload.model_fields_set and int(workload.prompt) != tokens:
        raise UnsupportedError(f"{model.name}: an image has {tokens} tokens; leave out prompt {workload.prompt}")
    return workload.model_copy(update={"prompt": tokens})
