"""What the page of :mod:`effsim.validation.page` says around its tables."""

from __future__ import annotations

from .blocks import TOLERANCE
from .engines import COMPOSITE as COMPOSITE_LABELS
from .kernels import NAIVE_FRACTION, NAIVE_LAUNCH_S, ROWS_A_GROUP, SEED
from .residuals import LEVEL, SPLIT_SEED
from .tables import ENVIRONMENT

WEAK_MEDIAN, WEAK_ROWS, WEAK_SHOWN = 0.25, 30, 15
"""What counts as weak: a median error above this on at least so many rows; how many are listed."""

INTRODUCTION = """# Accuracy

Predictions of effsim against measurements that others published. Nothing here was fitted row by row: the parameters of
the bundled hardware come from datasheets and microbenchmarks and say so (`effsim explain`), and where one was read from
one of these tables its `source` names it. Errors are (predicted − measured) / measured; *median*, *MAPE* and *p90* are
of their size, *bias* is the mean with its sign (negative: effsim is too fast). Two engines timing the same GEMM on the
same GPU differ by 1 to 7 % in the median, and by 16 to 23 % on the same attention: no model can be closer to both."""

KERNELS = f"""Rows are those of ai-dynamo/aiconfigurator (CUDA graphs; engines named in the files), microsoft/vidur
(device time of Llama-2 modules) and PrincetonUniversity/LLMCompass (eager, launch included), grouped by measured
duration. Of tables with more than {ROWS_A_GROUP:,} rows a GPU and kind, as many are drawn with seed {SEED}. Beside the
model's errors stand the median errors of two formulas a spreadsheet can do: *roofline* is max(FLOPs / peak, bytes /
bandwidth), *rule of thumb* is that divided by {NAIVE_FRACTION} plus {NAIVE_LAUNCH_S * 1e6:.0f} us.
*Inside* is how often the measurement lies between `predicted_low_s` and `predicted_high_s`
(meant: {100 * LEVEL:.0f} %), on the half of the rows that the intervals were not fitted on (split by a hash with seed
{SPLIT_SEED}); *elsewhere* the same if nothing of this GPU had been measured, so that other GPUs stand in for it;
*width* is the median of (high − low) / predicted."""

COMPOSITE = f"""In these tables ({", ".join(f"`{label}`" for label in COMPOSITE_LABELS)}) a row contains more than the
operator that effsim predicts: fp8 GEMM rows quantise their activations first, in several unfused passes (a product that
takes 365 us in bf16 takes 5.9 ms), block-scaled ones on H200 and latent attention everywhere have a floor of 50 to
300 us that does not depend on the size. They are shown because leaving them out would look better than it is; their
errors say little about the kernel."""

WEAK = f"""Spans of at least {WEAK_ROWS} rows with a median error above {100 * WEAK_MEDIAN:.0f} %, worst first.
Where a row of a table is a whole operator of an engine (attention with its cache write and combine, mixture of experts
with its sorting) the prediction is of the kernels alone."""

MECHANISMS = """What the rows show of the mechanisms behind these errors (the shares and times here are measured ones):

- **GEMM on A100, all sizes.** Large products reach 84 % of peak in the engines' tables and in Vidur's, 93 % in
  LLMCompass' shorter runs: clock under load, and the issue of operands beside the matrix instructions. Weight streams
  above 64 MB reach 73 % of the bandwidth, where a read-only benchmark reaches 87 %; those of 8 to 32 MB reach 47 %.
  Products with a short k (up to 128) and a wide result are bound by writing it, and the next tile does not hide that.
- **Attention while generating.** Every row has a floor of 10 to 13 us (several kernels and the cache write), and time
  grows by about 40 ns for each sequence and key/value head even where the cache holds two tokens (2048 sequences and 4
  heads: 331 us on A100): blocks have a fixed cost of microseconds.
- **Experts at thousands of tokens** reach a fifth of H100's bf16 peak (about 200 TFLOP/s): the measured Triton kernels
  use neither Hopper's asynchronous matrix instructions nor tiles as large as cuBLAS, and pad each expert's last tile.
- **NCCL on small and medium messages.** 64 KiB over 8 A100 take 31 us, 1 MiB over 2 take 44 us; the device file has one
  start cost that lies between NCCL's ring and the one-shot kernels of inference libraries. Vidur's all-reduces, timed
  from Python, also contain host time up to about half a millisecond.
- **Chunked scans of short sequences** pay for a whole chunk: one token of Mamba-2 takes 29 us on B200 and grows with
  sequences times heads.
- **Depthwise convolution** in Triton runs at a few microseconds a sequence at least, well above launch cadence.
- **Compiled layer norm and GELU** cost 45 us of launch in LLMCompass' eager rows, the device file has 21 us for all.
- **Vidur's row-wise kernels** (RMSNorm, rotary embedding, SiLU) are those of an early vLLM and move their bytes at a
  third to a half of the bandwidth that its additions reach.
- **MI210** has hardly any measured parameter in its file: its errors are those of an unmeasured GPU."""

BLOCKS = f"""LLMCompass (Zhang et al., ISCA 2024) timed every operator of one GPT-3 175B block alone, eagerly, on four
A100 joined by NVLink. The bundled workloads `gpt3_block_decode` (batch 8 at 3072 cached tokens) and
`gpt3_block_prefill` (batch 8 of 2048 tokens) say the same on `system_4xa100`: three separate projections, unfused
attention, and layer norm
and GELU as one compiled kernel each. An isolated operator costs 21 us of launch in the model; compiled layer norm and
GELU cost 45 us in the measurement and nothing is done about that. The tests hold both totals within
{100 * TOLERANCE:.0f} %."""

RUNS = """Static batches, prompts and single steps whose workload is fully stated in the source, each with the profile
of the engine of its time (`workloads/engines/`). Few numbers of these profiles are fitted, and each file
says on which rows; the other rows, models and GPUs judge them: FasterTransformer on GPT-175B with prompts
of 512; TensorRT-LLM on GPT-J-6B and on Falcon-180B on A100; vLLM of 2023 on Llama-2-70B on two and four
A100, and the speed of the H100's host on four H100; vLLM 0.5 on Llama-3-70B. gpt-fast and llama.cpp have no
fitted number. Known and not explained: prompts of more than 2560 tokens in the Splitwise profile cost up to
twice as much a token as shorter ones on either GPU, the more the more GPUs; long prompts of
FasterTransformer's GPT-3 6.7B run at 170 TFLOP/s where its 20B reaches 215."""

TRAINING = """Time of a step and memory of a GPU, separately. What the sources do not say is taken from their own
configuration files (see `validation/training_rows.py`). llm-foundry's tables were measured with the software of 2023
(PyTorch 1.13 to 2.1, its libraries and attention kernels), which no measurement here describes: its rows are
predicted too fast throughout. Sequences of 8192 tokens and more are apart, because the attention kernel of a row is
not stated. Rows that are left out stand below the table."""

REPEAT = f"""## How to repeat

The measurements are public and not part of this repository. Lay the files out as `kernels/<gpu>/*.parquet`
(ai-dynamo/aiconfigurator, Apache-2.0), `vidur/*.csv` (microsoft/vidur, MIT), `llmcompass/*.csv`
(PrincetonUniversity/LLMCompass, BSD-3) and, for whole models, `published.csv`, then

```
effsim validate --data FOLDER --out docs/accuracy.md
effsim validate kernels --gpu gpu_a100 --json
```

or set `{ENVIRONMENT}`. How columns were read, and why, is written at the top of `validation/engines.py` and
`validation/profiles.py`. A table of your own: `effsim kernels HW TABLE`."""
