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
product: activations arrive in 16 bits and are quantised first, by the operations of a framework one by one (vLLM 0.14:
8192 × 64 × 65536 takes 365 us in bf16 and 5.9 ms so) or by one kernel. The prediction contains that, too. Block-scaled
rows that vLLM 0.17 and later launched without a graph are left out below 90 us, where they time the host."""

WEAK = f"""Spans of at least {WEAK_ROWS} rows with a median error above {100 * WEAK_MEDIAN:.0f} %, worst first."""

MECHANISMS = """What is believed to be missing (the shares and times here are measured ones):

- **GEMM on A100.** The library takes 256 x 128 tiles in two rounds where the search here finds 128 x 128 tiles to be 12
  to 20 % faster; products of k up to 128 run on slower kernels (12 to 28 %). Vidur's large products run 7 to 14 %
  slower than those of the engines' tables.
- **Weight-only products on A100** (8.5 %, target 8 %): the plugins' own tile choice; k of 1024 to 4096 is 15 to 25 %
  too fast, above 16384 too slow.
- **Experts.** Shapes that vLLM ships tuned tiles for run 1.7 to 4.7 times faster than its default tiles, which are
  assumed everywhere; this makes most of the p90 of 16-bit and fp8 experts.
- **Attention.** Head size 64 on H200 is too slow by a fifth, 512 uses another kernel; on H100 generation with 1 to 4
  key heads takes as long as with 8. Latent attention of vLLM was timed in six eager runs of the whole module: one row
  in ten is a multiple of its neighbours at random, so its p90 says little.
- **Causal convolution**: lengths of 1 to 4, and instruction issue of long turns.
- **Vidur's all-reduces** are timed from Python and contain host time up to half a millisecond.
- **MI210**: its rows stay near 600 GB/s and two thirds of the matrix peak whatever the kernel; why is not known.
- **Energy**: most rows were read once, before they ran; values of the operands are unknown."""

BLOCKS = f"""LLMCompass (Zhang et al., ISCA 2024) timed every operator of one GPT-3 175B block alone, eagerly, on four
A100 joined by NVLink. The bundled workloads `gpt3_block_decode` (batch 8 at 3072 cached tokens) and
`gpt3_block_prefill` (batch 8 of 2048 tokens) say the same on `system_4xa100`: three separate projections, unfused
attention, and layer norm
and GELU as one compiled kernel each. An isolated product costs 21 us of launch, an operator of the framework 12 us, a
compiled function 45 us, as the paper states. The tests hold both totals within
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
(PyTorch 1.13 to 2.1 and Triton's attention of then): its rows are predicted too fast throughout. What remains is about
200 to 400 bytes per hidden element, token and layer on either GPU, which no kernel of the sources explains, GEMMs
that would have to run near 610 TFLOP/s on H100, and 1.5 to 2.5 points for every doubling of the nodes. Excluded,
because the rows or the sources contradict them: fp32 weights with casts, a fixed host time a step, dropout. Sequences
of 8192 tokens and more are apart, because the attention kernel of a row is not stated. Rows that are left out stand
below the table."""

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
