"""The words and examples of the format pages that are written by hand; a test validates every example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_QUANTITIES = (
    "Numbers with a unit are written `2.039 TB/s`, or with their origin: "
    "`{value: 2.039 TB/s, kind: datasheet, source: …}`; `kind` is `datasheet`, `measured`, `fitted`, `assumed` or "
    "`unverified` ([units and errors](../units_and_errors.md)). A bare number takes its origin from `provenance:` of "
    "its file. Unknown fields are errors."
)

_EXTENDS = (
    "`extends: NAME` at the top level starts from a bundled file or a path relative to this file: mappings are joined, "
    "everything else is replaced, `null` removes what was inherited."
)

INTRODUCTIONS: Final[Mapping[str, str]] = {
    "gpu": f"{_QUANTITIES}\n\n{_EXTENDS} For a GPU it may also name a generation (`ampere`, `hopper`, …), which holds "
    "what all members share: rates of one SM, launch costs, the habits of the kernel library.",
    "system": f"{_QUANTITIES}\n\n{_EXTENDS} `--set hardware.device.…` reaches into the device's own file.",
    "workload": f"{_QUANTITIES}\n\n{_EXTENDS} The operators of an explicit list have the kinds and columns of "
    "`effsim kernels` ([command line](../cli.md#effsim-kernels)).",
    "plan": "How a fleet is found, what the answer says and what it leaves out: [capacity planning](../plan.md). "
    "`effsim list plans` names bundled ones. A scheduler or precision entry changes only the fields that it gives.",
    "study": "How studies are run, resumed and read: [sweeps](../sweep.md). `effsim list studies` names bundled ones.",
    "fit": "Numbers of kind `fitted` come from such recipes: [how they are run and checked]"
    "(../validation.md#fitted-numbers). `effsim list fits` names bundled ones.",
    "engine": f"{_QUANTITIES}\n\n{_EXTENDS}",
    **dict.fromkeys(("cpu", "pim", "systolic", "fpga", "dram"), f"{_QUANTITIES}\n\n{_EXTENDS}"),
    "architecture": f"Dimensions are whole numbers without units. {_EXTENDS} `effsim import config.json` makes such a "
    "file from a Hugging Face configuration.",
}

_GPU = """\
extends: ampere
kind: gpu
name: "Example GPU"
provenance: {kind: assumed, source: "an imagined part, for illustration"}
clock: {boost: 1.4 GHz}
sm: {count: 64}
memory:
  kind: hbm2e
  capacity: 48 GiB
  bandwidth: 1.2 TB/s
  latency: {value: 420 ns, kind: measured, source: "pointer chase over 4 GiB"}
  stream_fraction: 87 %
  reserved: 1 GiB
l2: {capacity: 24 MiB, bandwidth: 3.2 TB/s, latency: 150 ns}
links:
  pcie: {kind: pcie, bandwidth: 31.5 GB/s, latency: 1 us, max_devices: 4}
power: {limit: 250 W}
price: {hourly: 1.20 USD/h}
"""

_SYSTEM = """\
kind: system
name: "Two nodes of eight A100"
provenance: {kind: assumed, source: "an imagined cluster, for illustration"}
devices:
  - {hardware: gpu_a100, count: 16}
topology:
  - {name: nvlink, kind: switch, size: 8, bandwidth: 300 GB/s, latency: 0.5 us}
  - {name: infiniband, kind: fat_tree, size: 2, bandwidth: 25 GB/s, latency: 2.7 us}
"""

_WORKLOAD = """\
kind: workload
name: "Chat with Llama-2-7B"
model: llama2_7b
task: generate
batch: 8
prompt: 512
generate: 128
precision: {activations: fp16, weights: int8}
engine: vllm-like
"""

_OPERATORS = """\
kind: workload
name: "MLP of two layers on two devices"
task: operators
parallelism: {tensor: 2}
operators:
  - name: block
    repeat: 4
    operators:
      - {name: up, kind: linear, split: column, dimensions: {m: 64, n: 16384, k: 4096, dtype: fp16}}
      - {name: act, kind: gelu, split: column, dimensions: {rows: 64, cols: 16384, dtype: fp16}}
      - {name: down, kind: linear, split: row, after: all_reduce, dimensions: {m: 64, n: 4096, k: 16384, dtype: fp16}}
"""

_ENGINE = """\
kind: engine
name: my-server
provenance: {kind: measured, source: "host profile of one decode step"}
launch: graph
fused_pointwise: true
fused_residual_norm: true
uncaptured: eager
graph_batches: [1, 2, 4, 8, 16, 32]
host_per_step: 200 us
host_per_sequence: 3 us
"""

_ARCHITECTURE = """\
kind: architecture
name: Small hybrid
vocab: 32000
hidden: 2048
layers:
  - repeat: 8
    layers:
      - repeat: 3
        mixer: {kind: mamba2, heads: 64, head_dim: 64, state: 128}
      - mixer: {kind: attention, heads: 16, kv_heads: 4}
        ffn: {kind: moe, experts: 8, top_k: 2, intermediate: 4096}
"""

_CPU: Final = """\
extends: cpu_xeon
kind: cpu
name: "one socket, faster memory"
provenance: {kind: assumed, source: "what if"}
sockets: 1
memory: {bandwidth: 409.6 GB/s}
"""

_PIM: Final = """\
extends: pim_hbm_pim
kind: pim
name: "HBM-PIM with units twice as fast"
provenance: {kind: assumed, source: "what if"}
unit: {interval: 2 cycles}
host: {efficiency: 0.7}
"""

_SYSTOLIC: Final = """\
extends: systolic_array
kind: systolic
name: "64 x 64, output-stationary"
provenance: {kind: assumed, source: "what if"}
array: {rows: 64, columns: 64}
dataflow: os
"""

_FPGA: Final = """\
extends: fpga_u280
kind: fpga
name: "U280, one design a model"
provenance: {kind: assumed, source: "what if"}
mode: dataflow
"""

_DRAM: Final = """\
extends: hbm2
kind: dram
name: "HBM2 without refresh"
provenance: {kind: assumed, source: "what if"}
refresh: {mode: "off"}
"""

_PLAN = """\
kind: plan
name: "Chat on whatever is cheapest"
workload: llama3_70b_chat
slo: {ttft: {p95: 1 s}, tpot: {p95: 50 ms, mean: 40 ms}}
headroom: 20 %
candidates:
  - {hardware: gpu_h100, name: H100, price: 3 USD/h}
  - {hardware: gpu_h200, name: H200, parallelism: [{tensor: 2}, {tensor: 4}]}
  - hardware: gpu_h200
    name: H200 with twice the memory
    set: [hardware.memory.capacity=282 GiB]
    price: {value: 6 USD/h, kind: assumed, source: "what it may cost"}
precision: [{weights: bf16}, {weights: fp8, kv_cache: fp8}]
scheduler: [{max_tokens: 2048}, {max_tokens: 8192}]
variants:
  - {name: as it is}
  - {name: no prefix cache, set: [workload.serving.cache.prefix=false]}
whatif:
  - {name: twice the load, load: 2}
"""

_STUDY = """\
kind: study
name: "Which GPU, how many sequences"
hardware: gpu_h100
workload: llama3_8b_decode
parameters:
  - {path: hardware, values: [gpu_a100, gpu_h100, gpu_h200]}
  - {path: workload.batch, range: {low: 1, high: 256, scale: log, points: 9, integer: true}}
method: grid
constraints: [memory.fits, time_per_token_s <= 20 ms]
objectives:
  - {name: tokens_per_s, goal: max}
  - {name: usd_per_million_tokens, goal: min}
"""

_FIT = """\
kind: fit
name: ampere
writes: ampere
device: gpu_a100
split: {fraction: 0.5, seed: 11}
stages:
  - name: attention
    source: "attention tables of an A100"
    rows:
      - {table: kernels/a100_sxm/attention.parquet, labels: [attention context, attention generation], most: 500}
    parameters:
      - {paths: [kernels.attention.step_latency], low: 0.02 us, high: 3 us}
      - {paths: [kernels.attention.tile_latency], low: 0.1 us, high: 10 us}
"""

EXAMPLES: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "gpu": (("A GPU of a known generation:", _GPU),),
    "cpu": (("A server processor that exists, with more memory channels' worth of bandwidth:", _CPU),),
    "pim": (("A memory that exists, with faster units and a better host library:", _PIM),),
    "systolic": (("An array that exists, larger and output-stationary:", _SYSTOLIC),),
    "fpga": (("A board that exists, with a design folded for one model:", _FPGA),),
    "dram": (("A preset that exists, without refresh:", _DRAM),),
    "system": (("Two levels; one group of devices:", _SYSTEM),),
    "workload": (("A model and what is asked of it:", _WORKLOAD), ("An explicit list of operators:", _OPERATORS)),
    "engine": (("A server with graph replay and a busy host:", _ENGINE),),
    "architecture": (("Three scans and one attention layer with experts, eight times:", _ARCHITECTURE),),
    "plan": (("Two devices and one that does not exist yet, two element types, two batch limits:", _PLAN),),
    "study": (("Three GPUs and nine batches, for many tokens and cheap ones:", _STUDY),),
    "fit": (("Two numbers of a generation, fitted together to half of the rows:", _FIT),),
}
"""(caption, YAML text) of every kind of file."""
