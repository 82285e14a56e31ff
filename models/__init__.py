"""Functional models: the real numbers, computed in the tiling and order that the timing models count.

Every module computes what one family of operators computes, in float32 and in the order of the tiles that hardware
works through. They prove that what is timed gives the right answer; they are not meant to be fast libraries.

======================  ==============================================================================================
module                  what it computes
======================  ==============================================================================================
``rounding``            bf16, fp16, tf32, fp8, fp4 rounding (nearest even); int8 / int4 group quantisation and packing
``gemm``                tiled GEMM, blocked along k, split-K, bias, rounded inputs
``attention``           tiled attention with online softmax: context, generation with split-KV, paged KV, merge
``mla``                 multi-head latent attention, expanded and absorbed
``norm``                RMSNorm and LayerNorm with lane-wise sums
``rope``                rotary position embedding, half-split and interleaved, whole or partial
``activation``          SiLU, GELU (exact, tanh), squared ReLU, SwiGLU, GeGLU
``moe``                 top-k router and grouped experts
``scan``                selective scan (Mamba-1), recurrent and chunked
``ssd``                 state-space duality (Mamba-2), recurrent and chunked
``delta``               gated delta rule, recurrent and chunked (WY form)
``conv``                causal depthwise conv1d with state; conv2d, direct and im2col
``fftconv``             long causal convolution, direct and by radix-2 FFT
``embedding``           table lookup, whole and sharded over the vocabulary
``sampling``            softmax, top-k and top-p filters, seeded sampling
``collectives``         all-reduce, reduce-scatter, all-gather, all-to-all in a ring's own order
======================  ==============================================================================================

Import the module you need (``from effsim.models import gemm``); importing the package alone imports neither numba nor
numpy. Arrays come in as anything numpy accepts, are computed in float32 and come back as float32.

The same code runs interpreted with ``NUMBA_DISABLE_JIT=1``. Sums keep their order and transcendental functions are
evaluated in double and rounded once, so compiled and interpreted results agree to the last bit wherever the C library
behind both gives the same double, and to one unit in the last place of each exponential otherwise.
"""
