"""Comparison of variants with a base over paired seeds: which differences are more than the seeds' noise.

Variants may come in groups, each with a base of its own; all their comparisons are one family.

The interval of each difference is Student's, at 95 %, as if it were the only one. Verdicts do count how many variants
were tried: better or worse is only what has a p below 0.05 in the paired t-test after Holm's adjustment. Where no
variant changes anything, at most one ablation of twenty then calls any of them better or worse. So an interval may lie
beside 0 and the verdict still be "within noise". The sign-flip test is reported beside it, because it supposes no
normal distribution; with less than six seeds it has no say.

Differences that are the same with every seed have no scatter to judge by. Where they are 0 the variant changed nothing
and p is 1. Where they are not, t would be infinite and p 0 however few seeds there were; p is then the smallest of the
sign-flip test, 2 / 2^n, and there is no interval.

The sign-flip test: if a variant changed nothing, each seed's difference could as well have had the other sign. So p is
the share of all 2^n choices of signs whose sum is at least as far from 0 as the one that was seen (Fisher, 1935). With
n seeds it cannot be less than 2 / 2^n, the observed signs and their opposites: below six seeds no difference, however
large, reaches 0.05. `scipy.stats.permutation_test` gives the same p where no two sums are equal. It breaks ties by the
rounding of floats where the sum is near 0, and takes a thousand times as long with 18 seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from harness.statistics.intervals import Summary, differences, summary
from trainers.errors import UsageError

Scores = Mapping[int, float]
"""By seed."""
ALPHA = 0.05
MOST_EXACT = 18
"""Differences whose signs are all enumerated: 2^17 sums, for opposite signs count alike."""
DRAWS = 100_000
"""Choices of signs that are drawn where there are more differences."""
CHUNK = 10_000
TOLERANCE = 1e-9
"""Two sums are equal that differ by less than this share of the largest one that is possible: scores are rounded to
floats, and a tie that rounding breaks would make p smaller than it is."""
ROUNDING = 1e-12
"""Differences whose spread is below this share of the scores are the same: what is left is the rounding of floats."""


class Verdict(StrEnum):
    """What may be said of a variant."""

    BETTER = "better"
    WORSE = "worse"
    NOISE = "within noise"
    FEW = "too few seeds"


@dataclass(frozen=True)
class Comparison:
    """A variant against the base. All but `seed_spread` is over the seeds that both have."""

    n: int
    """Seeds that both have; trainings that failed make it smaller."""
    mean: float | None
    """Of the variant; none without seeds."""
    std: float | None
    """Of the variant over seeds; none with less than two."""
    difference: float | None
    """Mean of variant - base; none without seeds."""
    ci_low: float | None
    """Paired t-interval of 95 % of the difference, not adjusted; none with less than two seeds, or where all
    differences are the same and not 0."""
    ci_high: float | None
    p_t: float | None
    """Paired t-test, two-sided, Holm-adjusted over the variants; none with less than two seeds."""
    p: float | None
    """Sign-flip test, the same; none with less than six seeds."""
    smallest_p: float
    """The smallest p, not adjusted, that the sign-flip test can attain with n seeds."""
    verdict: Verdict
    seed_spread: float | None
    """Standard deviation of the base over all its seeds; none with less than two."""
    family: int
    """Comparisons that were made, over all groups: what p-values are adjusted for."""


def compare(base: Scores, variants: Mapping[str, Scores], maximise: bool = True) -> dict[str, Comparison]:
    """Return the comparison of each variant with the base, by label, in the order given.

    Args:
        variants: scores by label. Seeds that are missing here or in the base, because a training failed, are left out
            of that variant's pairs alone; a variant without any counts in the family still.

    Raises:
        UsageError: a score is not finite. A failed training has no score.
    """
    return compare_groups([(base, variants)], maximise)


def compare_groups(
    groups: Sequence[tuple[Scores, Mapping[str, Scores]]], maximise: bool = True
) -> dict[str, Comparison]:
    """Return the comparison of each variant with the base of its group, by label; all are one family.

    Args:
        groups: a base and its variants each, as in `compare`; no two variants have the same label.

    Raises:
        UsageError: a score is not finite.
    """
    for base, variants in groups:
        for label, scores in [("the base", base), *variants.items()]:
            for seed, score in scores.items():
                if not math.isfinite(score):
                    given = f"that of {label} with seed {seed} is {score}"
                    raise UsageError(f"scores must be finite, {given}: leave failed trainings out")
    sides = {label: (scores, base) for base, variants in groups for label, scores in variants.items()}
    pairs = {label: differences(*both) for label, both in sides.items()}
    tests = [_t_test([*pair.values()], sides[label][1]) for label, pair in pairs.items()]
    flips = [sign_flip([*pair.values()]) for pair in pairs.values()]
    ps_t, ps = holm([p for _, p in tests]), holm([flip.p for flip in flips])
    comparisons = {}
    for (label, pair), (between, _), p_t, flip, p in zip(pairs.items(), tests, ps_t, flips, ps, strict=True):
        scores, base = sides[label]
        own = summary([scores[seed] for seed in pair])
        comparisons[label] = Comparison(
            n=own.n,
            mean=own.mean,
            std=own.std,
            difference=between.mean,
            ci_low=between.low,
            ci_high=between.high,
            p_t=p_t,
            p=p,
            smallest_p=flip.smallest,
            verdict=_verdict(between.mean, p_t, maximise),
            seed_spread=summary([*base.values()]).std,
            family=len(sides),
        )
    return comparisons


def in_words(comparison: Comparison, decimals: int = 3) -> str:
    """Return one line for people.

    For example: within noise: +0.012 [-0.010, +0.034] over 3 seeds; the seeds' own spread is 0.020.
    """
    verdict, n, low, high = comparison.verdict, comparison.n, comparison.ci_low, comparison.ci_high
    if comparison.difference is None:
        return f"{verdict}: no seed has a score of both the variant and the base"
    by = f"{comparison.difference:+.{decimals}f}"
    if n < 2:
        return f"{verdict}: {by} with one seed, which says nothing of others"
    std, among = comparison.seed_spread, "" if comparison.family == 1 else f" among {comparison.family} variants"
    spread = "" if std is None else f"; the seeds' own spread is {std:.{decimals}f}"
    p = "" if comparison.p_t is None else f" (p = {comparison.p_t:.2g}{among})"
    if low is None or high is None:
        return f"{verdict}: {by} with each of {n} seeds{p}{spread}"
    if low == high:
        return f"{verdict}: the same scores as the base with each of {n} seeds{spread}"
    beside_0 = low > 0 or high < 0
    return f"{verdict}: {by} [{low:+.{decimals}f}, {high:+.{decimals}f}] over {n} seeds{p if beside_0 else ''}{spread}"


def _verdict(difference: float | None, p_t: float | None, maximise: bool) -> Verdict:
    if difference is None or p_t is None:
        return Verdict.FEW
    if p_t >= ALPHA:
        return Verdict.NOISE
    return Verdict.BETTER if (difference > 0) == maximise else Verdict.WORSE


def _t_test(values: Sequence[float], base: Scores) -> tuple[Summary, float | None]:
    """Return the summary of differences and the two-sided p of the paired t-test; none with less than two."""
    between = summary(values)
    if between.mean is None or between.std is None:
        return between, None
    rounding = ROUNDING * max(abs(score) for score in base.values())
    if max(map(abs, values)) <= rounding:
        return Summary(between.n, 0.0, 0.0, 0.0, 0.0), 1.0
    if max(values) - min(values) <= rounding:
        return between._replace(std=0.0, low=None, high=None), sign_flip(values).smallest
    far = abs(between.mean) / (between.std / math.sqrt(between.n))
    return between, float(2 * special.stdtr(between.n - 1, -far))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Return Holm's step-down adjusted p-values, in the order given (Holm, 1979).

    The k-th smallest of m becomes the largest of (m - j + 1) p_j over j <= k, at most 1. That all those below 0.05 are
    rejected makes a false find with a chance of at most 0.05, however the tests depend on each other.

    None stays none and counts in the family, as a p of 1 would: a variant that was tried is one of the tries, also
    where its seeds failed. So the others are not adjusted by less because one of them went wrong.

    Raises:
        ValueError: a p is not in [0, 1].
    """
    if any(p is not None and not 0 <= p <= 1 for p in ps):
        raise ValueError(f"p-values must be in [0, 1], got {ps}")
    known = sorted((p, place) for place, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    largest = 0.0
    for before, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(ps) - before) * p))
        adjusted[place] = largest
    return adjusted


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
    draw, far = np.random.default_rng(seed), 0
    for start in range(0, DRAWS, CHUNK):
        signs = 1 - 2 * draw.integers(0, 2, (min(CHUNK, DRAWS - start), len(sizes)), np.int8)
        far += int((np.abs(signs @ sizes) >= bar).sum())
    return (far + 1) / (DRAWS + 1)
