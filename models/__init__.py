"""Functional models: the real numbers, computed in the tiling and order that the timing models count.

Every module computes what one family of operators computes, in float32 and in the order of the tiles that hardware
works through. They prove that what is timed gives the right answer; they are not meant to be fast libraries.

======================  ==============================================================================================
module                  what it computes
======================  ==============================================================================================
``rounding``            bf16, fp16, tf32, fp8, fp4 rounding (nearest even); int8 / int4 group quantisation and packing
``gemm``                tiled GEMM, blocked along k, split-K, bias, rounded inputs
``quantized``           weight-only int8 / int4 GEMM with group scales, int8 GEMM, fp8 GEMM with block scales
``systolic``            a grid of multipliers, register by register, with its cycles
``pim``                 matrix-vector products in DRAM banks, in bank order, with narrow accumulators
``fixed_point``         fixed-point formats and a folded matrix unit of an FPGA
``attention``           tiled attention with online softmax: context, generation with split-KV, paged KV, merge
``mla``                 multi-head latent attention, expanded and absorbed
``linear_attention``    linear attention, retention, RWKV, recurrent and chunked
``kv_cache``            new keys and values appended, whole or in pages
``norm``                RMSNorm and LayerNorm with lane-wise sums
``rope``                rotary position embedding, half-split and interleaved, whole or partial
``activation``          SiLU, GELU (exact, tanh), squared ReLU, SwiGLU, GeGLU
``pointwise``           the other row-wise operators, and a table of all by name
``moe``                 top-k router and grouped experts
``scan``                selective scan (Mamba-1), recurrent and chunked
``ssd``                 state-space duality (Mamba-2), recurrent and chunked
``ssm_conv``            state-space models with constant parameters as a convolution
``delta``               gated delta rule, recurrent and chunked (WY form)
``recurrent``           LSTM and GRU layers
``conv``                causal depthwise conv1d with state; conv2d, direct and im2col
``winograd``            conv2d with 3 x 3 kernels by minimal filtering
``fftconv``             long causal convolution, direct and by radix-2 FFT
``embedding``           table lookup, whole and sharded over the vocabulary
``sampling``            softmax, top-k and top-p filters, seeded sampling
``cross_entropy``       training loss, plain, chunked over the vocabulary, without logits in memory; its gradients
``backward``            gradients of products, tables, convolutions and experts
``attention_backward``  gradients of fused attention from its log-sum-exp
``pointwise_backward``  gradients of the row-wise operators
``scan_backward``       gradients of scans and causal convolutions
``optimizer``           AdamW with a master copy
``collectives``         all-reduce, reduce-scatter, all-gather, all-to-all, broadcast in a ring's own order
``registry``            which model belongs to which kind of the graph
======================  ==============================================================================================

Import the module you need (``from effsim.models import gemm``); importing the package alone imports neither numba nor
numpy. Arrays come in as anything numpy accepts, are computed in float32 and come back as float32.

The same code runs interpreted with ``NUMBA_DISABLE_JIT=1``. Sums keep their order and transcendental functions are
evaluated in double and rounded once, so compiled and interpreted results agree to the last bit wherever the C library
behind both gives the same double, and to one unit in the last place of each exponential otherwise.
"""
