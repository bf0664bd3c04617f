"""Several tests at once: Holm's adjustment, which bounds the chance of even one false find among all of them."""

from __future__ import annotations

from collections.abc import Sequence


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
