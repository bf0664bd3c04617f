"""Variants against a base over paired seeds: which differences are more than the seeds' noise.

The interval of each difference is Student's, at 95 %, as if it were the only one. Verdicts do count how many variants
were tried: better or worse is only what has a p below 0.05 in the paired t-test after Holm's adjustment. Where no
variant changes anything, at most one ablation of twenty then calls any of them better or worse. So an interval may lie
beside 0 and the verdict still be "within noise". The sign-flip test is reported beside it, because it supposes no
normal distribution; with less than six seeds it has no say.

Differences that are the same with every seed have no scatter to judge by. Where they are 0 the variant changed nothing
and p is 1. Where they are not, t would be infinite and p 0 however few seeds there were; p is then the smallest of the
sign-flip test, 2 / 2^n, and there is no interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from harness.statistics.intervals import Summary, differences, summary
from harness.statistics.permutation import ALPHA, sign_flip
from trainers.errors import UsageError

Scores = Mapping[int, float]
"""By seed."""
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
    """Variants that were compared with the base: what p-values are adjusted for."""


class _Test(NamedTuple):
    summary: Summary
    """Of the differences."""
    p: float | None
    """None with less than two."""


def compare(base: Scores, variants: Mapping[str, Scores], maximise: bool = True) -> dict[str, Comparison]:
    """Return the comparison of each variant with the base, by label, in the order given.

    Args:
        base: scores by seed.
        variants: the same by label. Seeds that are missing here or in the base, because a training failed, are left out
            of that variant's pairs alone; a variant without any counts in the family still.
        maximise: whether more is better.

    Raises:
        UsageError: a score is not finite. A failed training has no score.
    """
    for label, scores in [("the base", base), *variants.items()]:
        _require_finite(label, scores)
    pairs = {label: differences(scores, base) for label, scores in variants.items()}
    tested = [_t_test([*pair.values()], base) for pair in pairs.values()]
    flips = [sign_flip([*pair.values()]) for pair in pairs.values()]
    adjusted = zip(flips, holm([test.p for test in tested]), holm([flip.p for flip in flips]), strict=True)
    spread = summary([*base.values()]).std
    found = {}
    for (label, pair), test, (flip, p_t, p) in zip(pairs.items(), tested, adjusted, strict=True):
        own, between = summary([variants[label][seed] for seed in pair]), test.summary
        found[label] = Comparison(
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
            seed_spread=spread,
            family=len(variants),
        )
    return found


def in_words(found: Comparison, decimals: int = 3) -> str:
    """Return one line for people.

    For example: within noise: +0.012 [-0.010, +0.034] over 3 seeds; the seeds' own spread is 0.020.

    Args:
        found: the comparison.
        decimals: of all numbers but p.
    """
    if found.difference is None:
        return f"{found.verdict}: no seed has a score of both the variant and the base"
    by = f"{found.difference:+.{decimals}f}"
    if found.n < 2:
        return f"{found.verdict}: {by} with one seed, which says nothing of others"
    spread = "" if found.seed_spread is None else f"; the seeds' own spread is {found.seed_spread:.{decimals}f}"
    if found.ci_low is None or found.ci_high is None:
        return f"{found.verdict}: {by} with each of {found.n} seeds{_p(found)}{spread}"
    if found.ci_low == found.ci_high:
        return f"{found.verdict}: the same scores as the base with each of {found.n} seeds{spread}"
    beside = found.ci_low > 0 or found.ci_high < 0
    interval = f"[{found.ci_low:+.{decimals}f}, {found.ci_high:+.{decimals}f}]"
    return f"{found.verdict}: {by} {interval} over {found.n} seeds{_p(found) if beside else ''}{spread}"


def _p(found: Comparison) -> str:
    """Return the adjusted p of the t-test in brackets."""
    among = "" if found.family == 1 else f" among {found.family} variants"
    return "" if found.p_t is None else f" (p = {found.p_t:.2g}{among})"


def _verdict(difference: float | None, p_t: float | None, maximise: bool) -> Verdict:
    if difference is None or p_t is None:
        return Verdict.FEW
    if p_t >= ALPHA:
        return Verdict.NOISE
    return Verdict.BETTER if (difference > 0) == maximise else Verdict.WORSE


def _t_test(values: Sequence[float], base: Scores) -> _Test:
    """Return the summary of differences and the two-sided p of the paired t-test, not adjusted."""
    from scipy import special

    between = summary(values)
    if between.mean is None or between.std is None:
        return _Test(between, None)
    rounding = ROUNDING * max(abs(score) for score in base.values())
    if max(map(abs, values)) <= rounding:
        return _Test(Summary(between.n, 0.0, 0.0, 0.0, 0.0), 1.0)
    if max(values) - min(values) <= rounding:
        return _Test(between._replace(std=0.0, low=None, high=None), sign_flip(values).smallest)
    far = abs(between.mean) / (between.std / math.sqrt(between.n))
    return _Test(between, float(2 * special.stdtr(between.n - 1, -far)))


def _require_finite(label: str, scores: Scores) -> None:
    for seed, score in scores.items():
        if not math.isfinite(score):
            raise UsageError(
                f"scores must be finite, that of {label} with seed {seed} is {score}: leave failed trainings out"
            )


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
