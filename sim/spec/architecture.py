"""What a user writes to describe a model: the ``kind: architecture`` file.

A model is a list of runs of identical layers between an embedding and an output head. A run has a *mixer* (attention,
state-space, …), a feed-forward part, or both; or it is itself a list of runs that repeats as a whole, which is how
periodic hybrids are written once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from .fields import SpecModel

Dim = Annotated[int, Field(ge=1, le=2**40)]
"""A dimension of a model."""

Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "relu2", "sigmoid"]
"""Nonlinearity of a feed-forward part; ``relu2`` is the square of relu."""

RESERVED_NAMES = ("layers", "part")
"""What runs of layers without a name are called, followed by their number."""

GATED_ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu")
"""Nonlinearities that have a gated form (SwiGLU, GeGLU, ReGLU)."""


class PublishedCount(SpecModel):
    """A parameter count that somebody else states, to compare the built graph with."""

    value: Dim = Field(description="the number")
    source: str = Field(description="who states it")


class Norm(SpecModel):
    """Normalisation of the residual stream."""

    kind: Literal["rmsnorm", "layernorm"] = Field("rmsnorm", description="root mean square, or mean and variance")
    bias: bool = Field(True, description="layernorm only: learns a shift besides the scale")
    parametric: bool = Field(True, description="learns a scale; false leaves the norm without parameters")


class Attention(SpecModel):
    """Softmax attention with grouped keys and values."""

    kind: Literal["attention"] = Field(description="always 'attention'")
    heads: Dim = Field(description="query heads")
    kv_heads: Dim | None = Field(None, description="key/value heads; as many as query heads if absent")
    head_dim: Dim | None = Field(None, description="width of a query and key head; hidden / heads if absent")
    value_dim: Dim | None = Field(None, description="width of a value head; head_dim if absent")
    qkv_bias: bool = Field(False, description="biases on the query, key and value projections")
    out_bias: bool = Field(False, description="a bias on the output projection")
    qk_norm: bool = Field(False, description="RMS norm over every query and key head (Qwen3, Gemma-3)")
    output_gate: bool = Field(False, description="a sigmoid gate as wide as the output, from the input (Qwen3-Next)")
    window: Dim | None = Field(None, description="sliding window: keys a token sees, its own included")
    rope_fraction: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0, description="share of a head that rotary positions turn; 0 leaves this layer without them"
    )
    causal: bool = Field(True, description="a token sees only itself and earlier ones")

    @property
    def groups(self) -> int:
        """Key/value heads."""
        return self.kv_heads or self.heads

    @model_validator(mode="after")
    def _heads_divide(self) -> Attention:
        if self.heads % self.groups:
            raise ValueError(f"{self.heads} heads is no multiple of {self.groups} kv_heads")
        return self


class LatentAttention(SpecModel):
    """Multi-head latent attention: keys and values are compressed to one latent vector a token (DeepSeek-V2)."""

    kind: Literal["latent_attention"] = Field(description="always 'latent_attention'")
    heads: Dim = Field(description="query heads")
    q_lora_rank: Dim | None = Field(None, description="rank of the query compression; null projects directly")
    kv_lora_rank: Dim = Field(description="width of the cached latent vector of a token")
    nope_dim: Dim = Field(description="width of a head's part without positions")
    rope_dim: Dim = Field(description="width of the rotary part, shared by all heads on the key side")
    v_dim: Dim = Field(description="width of a value head")
    bias: bool = Field(False, description="the down-projections and the output have biases")


class Mamba(SpecModel):
    """Selective state space (Mamba-1)."""

    kind: Literal["mamba"] = Field(description="always 'mamba'")
    inner: Dim = Field(description="width of the scanned stream")
    state: Dim = Field(16, description="state elements a channel")
    dt_rank: Dim = Field(description="rank of the projection that gives the time step")
    kernel: Dim = Field(4, description="taps of the causal convolution")
    heads: Dim = Field(1, description="blocks of the input-dependent projections (Zamba has two)")
    conv_bias: bool = Field(True, description="a bias on the convolution")
    proj_bias: bool = Field(False, description="biases on the input and output projections")
    inner_norms: Literal["none", "parametric", "plain"] = Field(
        "none", description="RMS norms of Δ, B and C: learned (Jamba), without scales (Falcon-Mamba)"
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> Mamba:
        if self.inner % self.heads:
            raise ValueError(f"inner {self.inner} is no multiple of {self.heads} heads")
        return self


class Mamba2(SpecModel):
    """State-space duality (Mamba-2)."""

    kind: Literal["mamba2"] = Field(description="always 'mamba2'")
    heads: Dim = Field(description="heads of the scan")
    head_dim: Dim = Field(description="width of a head")
    state: Dim = Field(description="state elements a channel")
    groups: Dim = Field(1, description="groups of heads that share B and C")
    kernel: Dim = Field(4, description="taps of the causal convolution")
    chunk: Dim = Field(256, description="tokens the scan works on at once")
    gated_norm: bool = Field(True, description="gated RMS norm before the output; false gates without a norm")
    conv_bias: bool = Field(True, description="a bias on the convolution")
    proj_bias: bool = Field(False, description="biases on the input and output projections")

    @property
    def inner(self) -> int:
        """Width of the scanned stream."""
        return self.heads * self.head_dim

    @model_validator(mode="after")
    def _groups_divide(self) -> Mamba2:
        if self.heads % self.groups:
            raise ValueError(f"{self.heads} heads is no multiple of {self.groups} groups")
        return self


class GatedDelta(SpecModel):
    """Gated delta rule (Gated DeltaNet, as in Qwen3-Next); key heads are shared by groups of value heads."""

    kind: Literal["gated_delta"] = Field(description="always 'gated_delta'")
    key_heads: Dim = Field(description="query and key heads")
    value_heads: Dim = Field(description="value heads; a multiple of key_heads")
    key_dim: Dim = Field(description="width of a key head")
    value_dim: Dim = Field(description="width of a value head")
    kernel: Dim = Field(4, description="taps of the causal convolution")
    chunk: Dim = Field(64, description="tokens the delta rule works on at once")

    @model_validator(mode="after")
    def _heads_divide(self) -> GatedDelta:
        if self.value_heads % self.key_heads:
            raise ValueError(f"{self.value_heads} value_heads is no multiple of {self.key_heads} key_heads")
        return self


SingleMixer = Annotated[Attention | LatentAttention | Mamba | Mamba2 | GatedDelta, Field(discriminator="kind")]


class ParallelMixers(SpecModel):
    """Mixers that read the same input and whose results add (Falcon-H1)."""

    kind: Literal["parallel"] = Field(description="always 'parallel'")
    mixers: Annotated[list[SingleMixer], Field(min_length=2)] = Field(
        description="two or more mixers of different kinds"
    )

    @model_validator(mode="after")
    def _distinct(self) -> ParallelMixers:
        kinds = [mixer.kind for mixer in self.mixers]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"parallel mixers must differ in kind, got {', '.join(kinds)}")
        return self


Mixer = Annotated[
    Attention | LatentAttention | Mamba | Mamba2 | GatedDelta | ParallelMixers, Field(discriminator="kind")
]


class Mlp(SpecModel):
    """Feed-forward part of two matrices, or three when gated."""

    kind: Literal["mlp"] = Field(description="always 'mlp'")
    intermediate: Dim = Field(description="inner width")
    activation: Activation = Field("silu", description="nonlinearity")
    gated: bool = Field(True, description="a third matrix gates the inner activations (SwiGLU, GeGLU)")
    bias: bool = Field(False, description="biases on all matrices")

    @model_validator(mode="after")
    def _gate_exists(self) -> Mlp:
        _check_gate(self.activation, self.gated)
        return self


class Moe(SpecModel):
    """Routed experts, with or without experts that every token uses."""

    kind: Literal["moe"] = Field(description="always 'moe'")
    experts: Dim = Field(description="routed experts")
    top_k: Dim = Field(description="experts a token uses")
    intermediate: Dim = Field(description="width of one routed expert")
    activation: Activation = Field("silu", description="nonlinearity")
    gated: bool = Field(True, description="experts are gated (SwiGLU, GeGLU)")
    shared_experts: Annotated[int, Field(ge=0)] = Field(0, description="experts that every token uses")
    shared_intermediate: Dim | None = Field(
        None, description="width of all shared experts together; shared_experts × intermediate if absent"
    )
    shared_gate: bool = Field(False, description="a sigmoid of one learned projection scales the shared experts")
    router_bias: bool = Field(False, description="a bias on the router")

    @property
    def shared_width(self) -> int:
        """Width of all shared experts together; 0 if there are none."""
        return (self.shared_intermediate or self.shared_experts * self.intermediate) if self.shared_experts else 0

    @model_validator(mode="after")
    def _possible(self) -> Moe:
        _check_gate(self.activation, self.gated)
        if self.top_k > self.experts:
            raise ValueError(f"top_k {self.top_k} exceeds the {self.experts} experts")
        if not self.shared_experts and (self.shared_intermediate or self.shared_gate):
            raise ValueError("shared_intermediate and shared_gate need shared_experts of 1 or more")
        return self


FeedForward = Annotated[Mlp | Moe, Field(discriminator="kind")]


class SharedBlock(SpecModel):
    """A layer whose weights serve at several depths (Zamba): its parameters count once."""

    name: Annotated[str, Field(min_length=1)] = Field(description="layers with the same name share their weights")
    concatenate_embedding: bool = Field(
        False, description="the mixer reads [hidden, embedding output], twice as wide, and the layer has one residual"
    )
    projection: bool = Field(False, description="a linear of its own per depth (not shared) follows the layer")


class LayerRun(SpecModel):
    """``repeat`` identical layers, or ``repeat`` copies of the runs in ``layers``."""

    repeat: Dim = Field(1, description="identical layers, or copies of the group")
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")] | None = Field(
        None, description="prefix of the operator names; layers, layers_0, … (part_0, … inside a group) if absent"
    )
    mixer: Mixer | None = Field(None, description="what mixes tokens: attention, a scan, or several in parallel")
    ffn: FeedForward | None = Field(None, description="feed-forward part: one MLP, or experts")
    shared: SharedBlock | None = Field(None, description="the layer's weights are shared with other depths")
    layers: list[LayerRun] | None = Field(None, description="makes this a group of runs")

    @model_validator(mode="after")
    def _one_form(self) -> LayerRun:
        if self.layers is None:
            if self.mixer is None and self.ffn is None:
                raise ValueError("a layer needs a 'mixer', an 'ffn' or both; a group of layers needs 'layers'")
        elif self.mixer is not None or self.ffn is not None or self.shared is not None:
            raise ValueError("'layers' makes a group; its 'mixer', 'ffn' and 'shared' belong to the layers inside")
        elif not self.layers:
            raise ValueError("'layers' is empty")
        return self

    def leaves_runs(self) -> Iterator[LayerRun]:
        """Every run of layers (not group) inside, itself included."""
        if self.layers is None:
            yield self
        else:
            for inner in self.layers:
                yield from inner.leaves_runs()

    @property
    def depth(self) -> int:
        """Layers in all."""
        inner = 1 if self.layers is None else sum(run.depth for run in self.layers)
        return self.repeat * inner


class Patches(SpecModel):
    """An image cut into square patches, each of which becomes a token (ViT)."""

    height: Dim = Field(description="rows of the image in pixels; a multiple of patch")
    width: Dim = Field(description="columns of the image in pixels; a multiple of patch")
    patch: Dim = Field(description="side of a patch in pixels")
    channels: Dim = Field(3, description="colours of a pixel")
    class_token: bool = Field(True, description="a learned token stands before the patches")

    @property
    def tokens(self) -> int:
        """Tokens of one image."""
        return (self.height // self.patch) * (self.width // self.patch) + (1 if self.class_token else 0)

    @model_validator(mode="after")
    def _patches_fit(self) -> Patches:
        if self.height % self.patch or self.width % self.patch:
            raise ValueError(f"{self.height} × {self.width} pixels are no whole patches of {self.patch} × {self.patch}")
        return self


Residual = Literal["pre_norm", "post_norm", "sandwich", "parallel", "parallel_two_norms"]
"""How norms and residuals join a layer's parts: norm before each part; after each residual (OPT-350M); before and after
each part (Gemma-2); both parts on one norm and summed (Falcon-7B, Phi); the same with a norm each (GPT-NeoX)."""


class ArchitectureSpec(SpecModel):
    """A model: embedding of tokens or patches, layers, final norm, output head.

    With the head ``language_model`` it generates tokens; with ``classifier`` or ``none`` it is an encoder, whose
    attention sees all tokens, and which keeps no cache.
    """

    kind: Literal["architecture"] = Field(description="always 'architecture'")
    name: Annotated[str, Field(min_length=1, max_length=120)] = Field(description="name in reports")
    description: str = Field("", description="free text")
    source: str = Field("", description="where the hyper-parameters are published")
    parameters: PublishedCount | Dim | None = Field(None, description="published parameter count, for comparison")
    vocab: Dim | None = Field(None, description="entries of the vocabulary; absent for images")
    patches: Patches | None = Field(None, description="the input is an image in patches, instead of tokens")
    hidden: Dim = Field(description="width of the residual stream")
    segments: Dim | None = Field(None, description="rows of a second table that tells sentences apart (BERT)")
    head: Literal["language_model", "classifier", "none"] = Field(
        "language_model", description="logits of the vocabulary, of classes from the first token, or none"
    )
    pooler: bool = Field(False, description="the first token passes a projection and tanh before the classifier")
    classes: Dim | None = Field(None, description="outputs of the classifier")
    tied_embeddings: bool = Field(False, description="the output head is the embedding table")
    embedding_width: Dim | None = Field(None, description="width of the table where it is projected (OPT-350M)")
    embedding_norm: bool = Field(False, description="a norm follows the embedding (BLOOM)")
    position: Literal["rope", "learned", "alibi", "none"] = Field("rope", description="how positions enter")
    max_positions: Dim | None = Field(None, description="longest sequence; rows of a learned table")
    position_offset: Annotated[int, Field(ge=0)] = Field(0, description="unused rows of a learned table (OPT has 2)")
    norm: Norm = Field(
        default_factory=lambda: Norm.model_construct(kind="rmsnorm", bias=True, parametric=True),
        description="normalisation of the residual stream",
    )
    residual: Residual = Field("pre_norm", description="how norms and residuals join a layer's parts")
    final_norm: bool = Field(True, description="a norm precedes the output head")
    lm_head_bias: bool = Field(False, description="a bias on the output head")
    layers: Annotated[list[LayerRun], Field(min_length=1)] = Field(
        description="runs of identical layers, first to last"
    )

    @property
    def published_parameters(self) -> int | None:
        """The published parameter count, if any."""
        return self.parameters.value if isinstance(self.parameters, PublishedCount) else self.parameters

    @property
    def encoder(self) -> bool:
        """Sees all its input at once and generates no tokens."""
        return self.head != "language_model"

    @property
    def depth(self) -> int:
        """Layers in all."""
        return sum(run.depth for run in self.layers)

    def head_dim(self, mixer: Attention) -> int:
        """Width of a query and key head of *mixer* in this model."""
        return mixer.head_dim or self.hidden // mixer.heads

    @model_validator(mode="after")
    def _positions_known(self) -> ArchitectureSpec:
        if self.position == "learned" and self.max_positions is None:
            raise ValueError("position 'learned' needs 'max_positions': the rows of its table")
        if self.position_offset and self.position != "learned":
            raise ValueError(f"position_offset {self.position_offset} needs position 'learned', not {self.position!r}")
        return self

    @model_validator(mode="after")
    def _ends_agree(self) -> ArchitectureSpec:
        if (self.vocab is None) == (self.patches is None):
            raise ValueError("a model has either a 'vocab' or 'patches'")
        if self.patches is not None and (self.segments or self.embedding_width or self.position == "learned"):
            raise ValueError("'segments', 'embedding_width' and position 'learned' are for tokens, not for 'patches'")
        if (self.classes is None) == (self.head == "classifier"):
            raise ValueError("'classes' goes with the head 'classifier', which needs it")
        if not self.encoder and (self.patches is not None or self.pooler):
            raise ValueError("'patches' and 'pooler' need the head 'classifier' or 'none'")
        return self

    @model_validator(mode="after")
    def _encoder_sees_all(self) -> ArchitectureSpec:
        mixers = [layer.mixer for run in self.layers for layer in run.leaves_runs()]
        parts = [part for m in mixers for part in (m.mixers if isinstance(m, ParallelMixers) else [m])]
        if self.encoder and any(isinstance(p, LatentAttention) or getattr(p, "causal", False) for p in parts):
            raise ValueError(f"the head {self.head!r} makes an encoder: its attention needs 'causal: false'")
        return self

    @model_validator(mode="after")
    def _widths_divide(self) -> ArchitectureSpec:
        for run in self.layers:
            for layer in run.leaves_runs():
                _check_heads(self.hidden, layer.mixer)
        return self

    @model_validator(mode="after")
    def _names_distinct(self) -> ArchitectureSpec:
        _check_names(self.layers)
        shared: dict[str, LayerRun] = {}
        for run in self.layers:
            for layer in run.leaves_runs():
                _check_shared(layer, shared)
        return self


def _check_gate(activation: str, gated: bool) -> None:
    if gated and activation not in GATED_ACTIVATIONS:
        raise ValueError(f"activation {activation!r} has no gated form; expected one of {', '.join(GATED_ACTIVATIONS)}")


def _check_heads(hidden: int, mixer: object) -> None:
    mixers = mixer.mixers if isinstance(mixer, ParallelMixers) else [mixer]
    for part in mixers:
        if isinstance(part, Attention) and part.head_dim is None and hidden % part.heads:
            raise ValueError(f"hidden {hidden} is no multiple of {part.heads} heads; give the attention a head_dim")


def _check_names(runs: list[LayerRun]) -> None:
    names = [run.name for run in runs if run.name]
    for name in names:
        if name.rstrip("_0123456789") in RESERVED_NAMES:
            raise ValueError(f"{name!r} is a name that unnamed runs of layers get; choose another")
        if names.count(name) > 1:
            raise ValueError(f"two runs of layers are named {name!r}")
    for run in runs:
        _check_names(run.layers or [])


def _check_shared(layer: LayerRun, seen: dict[str, LayerRun]) -> None:
    if layer.shared is None:
        return
    first = seen.setdefault(layer.shared.name, layer)
    if (first.mixer, first.ffn, first.shared) != (layer.mixer, layer.ffn, layer.shared):
        raise ValueError(f"layers that share the block {layer.shared.name!r} differ")
