"""Comparisons of attention and of its cache."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

from effsim.models import attention, kv_cache, mla

from .bounds import TINY, UNIT, Bounded, gamma, join, softmax_average
from .case import Case, Check, Draw, Float32Array, normal
from .products import TORCH, numbers, wide


@dataclass(frozen=True, slots=True)
class Problem:
    """One attention with its mask (q_len, kv_len)."""

    q: Float32Array
    k: Float32Array
    v: Float32Array
    seen: npt.NDArray[np.bool_]
    scale: float

    def want(self) -> npt.NDArray[np.float64]:
        """PyTorch's attention in float64; rows that see nothing are zeros."""
        q, k, v = (wide(x).transpose(1, 2) for x in (self.q, self.k, self.v))
        mask = torch.from_numpy(self.seen)
        out = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, scale=self.scale, enable_gqa=True
        )
        out = torch.where(mask.any(-1)[:, None], out, 0.0)
        return numbers(out.transpose(1, 2))

    def bound(self) -> npt.NDArray[np.float64]:
        """Error of scores (d products, the scale and its rounding), then of the online softmax."""
        group = self.q.shape[2] // self.k.shape[2]
        out = np.empty((*self.q.shape[:3], self.v.shape[3]))
        for b in range(self.q.shape[0]):
            for h in range(self.q.shape[2]):
                query, key = Bounded.exact(self.q[b, :, h]), Bounded.exact(self.k[b, :, h // group])
                scores = (query @ key.mT).times(Bounded(np.asarray(self.scale), np.asarray(UNIT * self.scale)))
                average = softmax_average(scores.rounded(), self.seen, Bounded.exact(self.v[b, :, h // group]))
                out[b, :, h] = average.error
        return out


def mask_of(q_len: int, kv_len: int, causal: bool, window: int | None) -> npt.NDArray[np.bool_]:
    """The last query stands at the last key."""
    rows, columns = torch.arange(q_len)[:, None] + kv_len - q_len, torch.arange(kv_len)
    seen = torch.ones(q_len, kv_len, dtype=torch.bool)
    if causal:
        seen &= columns <= rows
    if window is not None:
        seen &= rows - columns < window
    return np.asarray(seen.numpy())


def _heads(draw: Draw) -> tuple[int, int]:
    kv_heads = draw.integer(1, 3)
    return kv_heads * draw.integer(1, 5), kv_heads


def compare_context(draw: Draw) -> Iterator[Check]:
    """Random lengths, heads, windows and tiles; scores from flat to steep."""
    (heads, kv_heads), q_len, kv_len = _heads(draw), draw.integer(1, 40), draw.integer(1, 60)
    dim, causal = draw.integer(1, 20), draw.choice((True, False))
    window = draw.choice((None, 1, 7)) if causal else None
    k, v = normal(draw, 2, kv_len, kv_heads, dim), normal(draw, 2, kv_len, kv_heads, draw.integer(1, 20))
    q = normal(draw, 2, q_len, heads, dim, scale=draw.choice((1e-3, 1.0, 30.0)))
    scale = draw.choice((1.0 / math.sqrt(dim), 1.0))
    got = attention.context_attention(
        q, k, v, causal=causal, window=window, scale=scale, tile_q=draw.integer(1, 20), tile_kv=draw.integer(1, 30)
    )
    problem = Problem(q, k, v, mask_of(q_len, kv_len, causal, window), scale)
    yield Check(got, problem.want(), problem.bound(), f"causal {causal} window {window}")


def masked_rows(draw: Draw) -> Iterator[Check]:
    """More queries than keys: the first rows see nothing."""
    q, k, v = normal(draw, 1, 9, 2, 4), normal(draw, 1, 4, 1, 4), normal(draw, 1, 4, 1, 3)
    problem = Problem(q, k, v, mask_of(9, 4, True, None), 0.5)
    yield Check(attention.context_attention(q, k, v, scale=0.5, tile_q=4, tile_kv=3), problem.want(), problem.bound())


def large_logits(draw: Draw) -> Iterator[Check]:
    """Scores of thousands: one key takes all, or two share; nothing overflows."""
    q, k, v = normal(draw, 1, 8, 2, 8, scale=300.0), normal(draw, 1, 12, 2, 8), normal(draw, 1, 12, 2, 3)
    problem = Problem(q, k, v, mask_of(8, 12, True, None), 1.0)
    got = attention.context_attention(q, k, v, scale=1.0, tile_q=4, tile_kv=5)
    # The exponent of a score of thousands is only known to thousands of ulps: the bound widens with the scores.
    yield Check(got, problem.want(), problem.bound())


def infinite_values(draw: Draw) -> Iterator[Check]:
    """An infinite value reaches the queries that see it and no others; a NaN score spoils its row only."""
    q, k, v = normal(draw, 1, 6, 1, 4), normal(draw, 1, 6, 1, 4), normal(draw, 1, 6, 1, 2)
    v[0, 3, 0, 1] = np.inf
    q[0, 5, 0, 2] = np.nan
    seen = mask_of(6, 6, True, None)
    scores = np.where(seen, numbers(wide(q)[0, :, 0] @ wide(k)[0, :, 0].T) * 0.5, -np.inf)
    want = np.zeros((1, 6, 1, 2))
    for i in range(6):  # keys that a row does not see must not meet infinity: a masked sum, row by row
        own = torch.softmax(torch.from_numpy(scores[i, seen[i]]), 0) @ wide(v)[0, : i + 1, 0]
        want[0, i, 0] = numbers(own)
    finite = Problem(np.nan_to_num(q), k, np.where(np.isfinite(v), v, 0).astype(np.float32), seen, 0.5)
    with np.errstate(invalid="ignore"):
        got = attention.context_attention(q, k, v, scale=0.5, tile_q=6, tile_kv=3)
    yield Check(got, want, finite.bound())


def compare_generation(draw: Draw) -> Iterator[Check]:
    """Split-KV with lengths that differ, from a whole cache and from pages."""
    (heads, kv_heads), dim, batch = _heads(draw), draw.integer(1, 20), 2
    page, columns = draw.choice((2, 4)), draw.integer(1, 12)
    capacity = page * columns
    lens = draw.generator().integers(1, capacity + 1, batch)
    q, window = normal(draw, batch, heads, dim, scale=draw.choice((1.0, 20.0))), draw.choice((None, 5))
    pages = normal(draw, batch * columns, page, kv_heads, 2 * dim)
    table = draw.generator().permutation(batch * columns).reshape(batch, columns)
    cache = attention.gather_pages(pages, table, lens)
    k, v = cache[..., :dim], cache[..., dim:]
    got = attention.generation_attention(
        q, k, v, kv_lens=lens, splits=draw.integer(1, 4), window=window, tile_kv=draw.integer(1, 9)
    )
    for b in range(batch):
        n = int(lens[b])
        pool = torch.from_numpy(pages[table[b]]).reshape(capacity, kv_heads, 2 * dim)[:n].numpy()
        own = Problem(
            q[b][None, None], pool[None, ..., :dim], pool[None, ..., dim:], mask_of(1, n, True, window),
            1.0 / math.sqrt(dim),
        )  # fmt: skip
        yield Check(got[b], own.want()[0, 0], own.bound()[0, 0], f"{n} keys")


def compare_merge(draw: Draw) -> Iterator[Check]:
    """Log-sum-exp of the merged parts against PyTorch's of all scores."""
    q, k, v = normal(draw, 1, 3, 2, 6), normal(draw, 1, 20, 2, 6), normal(draw, 1, 20, 2, 4)
    cuts = np.concatenate([[0], np.sort(draw.generator().integers(0, 21, 3)), [20]])
    parts = [
        attention.attention_partial(q, k, v, q_start=[17], kv_begin=[i], kv_end=[j], causal=False, scale=1.0)
        for i, j in pairwise(cuts)
    ]
    merged = attention.merge_partials(parts)
    problem = Problem(q, k, v, mask_of(3, 20, False, None), 1.0)
    yield Check(merged.output, problem.want(), problem.bound(), "output")
    scores = torch.einsum("bihd,bjhd->bhij", wide(q), wide(k))
    want = numbers(torch.logsumexp(scores, -1).transpose(1, 2))
    largest = np.einsum("bihd,bjhd->bihj", np.abs(q).astype(np.float64), np.abs(k).astype(np.float64)).max(-1)
    bound = gamma(8) * largest + gamma(5 * 20 + 16) + 4 * UNIT * (largest + np.abs(want)) + gamma(6) * largest
    yield Check(merged.lse, want, bound, "log-sum-exp")


def compare_latent(draw: Draw) -> Iterator[Check]:
    """Both forms against scores written out from the latent vectors."""
    batch, heads, q_len, kv_len = 1, draw.integer(1, 3), draw.integer(1, 8), draw.integer(8, 14)
    rank, dim, rope, value_dim = draw.integer(1, 10), draw.integer(1, 6), draw.integer(1, 4), draw.integer(1, 6)
    q_nope, q_rope = normal(draw, batch, q_len, heads, dim), normal(draw, batch, q_len, heads, rope)
    latent, k_rope = normal(draw, batch, kv_len, rank), normal(draw, batch, kv_len, rope)
    w_uk, w_uv = normal(draw, heads, rank, dim), normal(draw, heads, rank, value_dim)
    seen, scale = mask_of(q_len, kv_len, True, None), 1.0 / math.sqrt(dim + rope)
    keys = torch.einsum("bjr,hrd->bhjd", wide(latent), wide(w_uk))
    scores = torch.einsum("bihd,bhjd->bhij", wide(q_nope), keys)
    scores = (scores + torch.einsum("bihd,bjd->bhij", wide(q_rope), wide(k_rope))) * scale
    weights = torch.softmax(scores.masked_fill(~torch.from_numpy(seen), -torch.inf), -1)
    want = numbers(torch.einsum("bhij,bjr,hrd->bihd", weights, wide(latent), wide(w_uv)))
    inputs = (q_nope, q_rope, latent, k_rope, w_uk, w_uv)
    expanded, absorbed = np.empty_like(want), np.empty_like(want)
    factor = Bounded(np.asarray(scale), np.asarray(UNIT * scale))
    for h in range(heads):
        c, kr = Bounded.exact(latent[0]), Bounded.exact(k_rope[0])
        up_k, up_v = Bounded.exact(w_uk[h]), Bounded.exact(w_uv[h])
        qn, qr = Bounded.exact(q_nope[0, :, h]), Bounded.exact(q_rope[0, :, h])
        wide_scores = (join([qn, qr], 1) @ join([c @ up_k, kr], 1).mT).times(factor).rounded()
        expanded[0, :, h] = softmax_average(wide_scores, seen, c @ up_v).error
        folded = (join([qn @ up_k.mT, qr], 1) @ join([c, kr], 1).mT).times(factor).rounded()
        absorbed[0, :, h] = (softmax_average(folded, seen, c) @ up_v).error
    yield Check(mla.latent_attention_expanded(*inputs, tile_q=3, tile_kv=4), want, expanded, "expanded")
    yield Check(mla.latent_attention_absorbed(*inputs, tile_q=5, tile_kv=3), want, absorbed, "absorbed")


def compare_append(draw: Draw) -> Iterator[Check]:
    """Appended tokens bit for bit as PyTorch converts and indexes them."""
    batch, new, heads, dim, dtype = 2, draw.integer(1, 4), 2, 3, draw.choice(("fp32", "bf16", "fp16", "fp8_e4m3"))
    page, columns = 3, 4
    cache, fresh = normal(draw, batch, page * columns, heads, dim), normal(draw, batch, new, heads, dim)
    lens = draw.generator().integers(0, page * columns - new + 1, batch)
    want = torch.from_numpy(cache.copy())
    for b in range(batch):
        want[b, torch.arange(new) + int(lens[b])] = torch.from_numpy(fresh[b]).to(TORCH[dtype]).float()
    yield Check(kv_cache.append(cache, fresh, lens, kv_dtype=dtype), want.numpy(), 0.0, "whole")
    table = draw.generator().permutation(batch * columns).reshape(batch, columns)
    pages = np.empty((batch * columns, page, heads, dim), np.float32)
    pages[table] = cache.reshape(batch, columns, page, heads, dim)
    paged = kv_cache.append_paged(pages, table, fresh, lens, kv_dtype=dtype)
    yield Check(paged[table].reshape(cache.shape), want.numpy(), 0.0, "pages")


CASES = (
    Case(
        "attention, context", ("attention.context_attention",), compare_context,
        (masked_rows, large_logits, infinite_values),
    ),
    Case("attention, generation", ("attention.generation_attention",), compare_generation),
    Case("attention, merge", ("attention.merge_partials",), compare_merge),
    Case("latent attention", ("mla.latent_attention_expanded", "mla.latent_attention_absorbed"), compare_latent),
    Case("KV append", ("kv_cache.append", "kv_cache.append_paged"), compare_append),
)  # fmt: skip

__all__ = ["CASES", "TINY", "Problem", "mask_of"]
