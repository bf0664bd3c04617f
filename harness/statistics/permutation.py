"""Sign-flip test of paired differences: exact where it can be, and without any normal distribution.

If a variant changed nothing, each seed's difference could as well have had the other sign. So p is the share of all 2^n
choices of signs whose sum is at least as far from 0 as the one that was seen (Fisher, 1935). With n seeds it cannot be
less than 2 / 2^n, the observed signs and their opposites: below six seeds no difference, however large, reaches 0.05.

`scipy.stats.permutation_test` gives the same p where no two sums are equal. It breaks ties by the rounding of floats
where the sum is near 0, and takes a thousand times as long with 18 seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.05
MOST_EXACT = 18
"""Differences whose signs are all enumerated: 2^17 sums, for opposite signs count alike."""
DRAWS = 100_000
"""Choices of signs that are drawn where there are more differences."""
CHUNK = 10_000
TOLERANCE = 1e-9
"""Two sums are equal that differ by less than this share of the largest one that is possible: scores are rounded to
floats, and a tie that rounding breaks would make p smaller than it is."""


class SignFlip(NamedTuple):
    """A two-sided sign-flip test."""

    n: int
    p: float | None
    """None where n is too small for any p below 0.05: the test has nothing to say, whatever was seen."""
    smallest: float
    """The smallest p that n differences, none of them 0, can attain."""
    method: Literal["exact", "monte carlo"]


def sign_flip(differences: Sequence[float], seed: int = 0) -> SignFlip:
    """Test whether paired differences lie around 0.

    Up to 18 differences p is exact. Beyond, signs are drawn, and p = (b + 1) / (m + 1), where b of m draws are as far
    out: an estimate that never claims less than m draws can show (Phipson and Smyth, 2010).

    Args:
        differences: one a seed; the order does not matter.
        seed: of the draws, where there are any.
    """
    n = len(differences)
    sizes = np.sort(np.abs(np.asarray(differences, np.float64)))
    bar = abs(math.fsum(differences)) - TOLERANCE * float(sizes.sum())
    if n > MOST_EXACT:
        smallest = max(2.0 ** (1 - n), 1 / (DRAWS + 1))
        return SignFlip(n, _monte_carlo(sizes, bar, seed), smallest, "monte carlo")
    smallest = min(1.0, 2.0 ** (1 - n))
    return SignFlip(n, _exact(sizes, bar) if smallest < ALPHA else None, smallest, "exact")


def _exact(sizes: NDArray[np.float64], bar: float) -> float:
    """Return p over all signs; the first stays positive, because the opposite of each choice is as far from 0."""
    sums = sizes[:1]
    for size in sizes[1:]:
        sums = np.concatenate([sums + size, sums - size])
    return float(np.mean(np.abs(sums) >= bar))


def _monte_carlo(sizes: NDArray[np.float64], bar: float, seed: int) -> float:
    draw = np.random.default_rng(seed)
    far = 0
    for start in range(0, DRAWS, CHUNK):
        signs = 1 - 2 * draw.integers(0, 2, (min(CHUNK, DRAWS - start), len(sizes)), np.int8)
        far += int((np.abs(signs @ sizes) >= bar).sum())
    return (far + 1) / (DRAWS + 1)
