"""Names of ATen operators by what they cost; in-place forms have the name of the pure one."""

from __future__ import annotations

from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


VIEWS: Final = _words(
    """
    view reshape transpose permute unsqueeze squeeze expand slice select split split_with_sizes chunk unbind
    contiguous alias detach flatten unflatten t clone lift_fresh_copy lift_fresh _unsafe_view view_as
    expand_as unfold narrow movedim swapaxes dropout feature_dropout native_dropout identity as_strided
    broadcast_to view_as_real view_as_complex real tensor_split diagonal _reshape_alias
    """
)
"""Calls that give other names to the same elements, or copies that kernels do on the way (layouts, dropout at
inference): they cost nothing."""

CASTS: Final = _words("to _to_copy type_as")
"""Changes of the element type."""

CREATION: Final = _words(
    """
    arange ones zeros full empty rand randn randint new_ones new_zeros new_full new_empty ones_like zeros_like
    full_like empty_like rand_like randn_like eye linspace scalar_tensor tril triu one_hot
    """
)
"""Calls that make a tensor from nothing."""

RANDOM: Final = _words("rand randn randint rand_like randn_like multinomial bernoulli")
"""Calls that give something else each time."""

WORK: Final = _words(
    """
    linear addmm mm bmm matmul einsum conv1d conv2d conv3d convolution embedding lstm gru scaled_dot_product_attention
    layer_norm
    """
)
"""Calls that run in every execution even on weights alone: nobody keeps their results beside the weights."""

LOGIC: Final = _words(
    """
    __and__ __or__ __xor__ __lshift__ __rshift__ bitwise_and bitwise_or bitwise_not logical_and logical_or
    logical_not eq ne lt le gt ge isin isnan isinf diff floor_divide bucketize searchsorted bitwise_xor invert
    """
)
"""Arithmetic of masks and positions: bytes, no FLOPs."""

ADDITIONS: Final = _words(
    """
    add sub rsub maximum minimum lerp fmod remainder where masked_fill clamp clamp_min clamp_max
    """
)
"""One vector operation an element."""

UNARY: Final = _words(
    """
    neg abs square round floor ceil sign trunc relu6 hardtanh leaky_relu threshold nan_to_num
    """
)
"""One vector operation an element of one tensor."""

SPECIAL: Final = _words(
    """
    exp exp2 log log2 log1p expm1 sqrt rsqrt reciprocal sin cos tan atan atan2 erf tanh
    """
)
"""One special function an element."""

SIGMOIDS: Final = _words("hardswish hardsigmoid mish elu selu logit")
"""Nonlinearities that cost what a sigmoid costs."""

COPIES: Final = _words(
    """
    cat stack index index_select gather pad constant_pad_nd repeat repeat_interleave roll flip copy fill
    index_put scatter slice_scatter select_scatter pixel_shuffle pixel_unshuffle im2col index_copy tile
    upsample_nearest2d masked_scatter unsafe_index _unsafe_index diag_embed meshgrid take_along_dim
    """
)
"""Bytes in and out, no arithmetic."""

REDUCTIONS: Final = _words(
    """
    sum mean amax amin max min prod var std argmax argmin cumsum cumprod any all norm linalg_vector_norm
    logsumexp count_nonzero var_mean
    """
)
"""One vector operation an input."""

POOLS: Final = _words(
    """
    max_pool1d max_pool2d max_pool3d max_pool2d_with_indices avg_pool1d avg_pool2d avg_pool3d
    adaptive_avg_pool1d adaptive_avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d
    """
)
"""Reductions of windows."""
