"""Eq. 9 in torch, built as the published code builds it: what our contrastive loss is timed against.

A Python loop over classes; within it, the classes of every anchor's negatives are drawn and counted, and a Python loop
over anchors and classes picks that many pixels each; the negatives are then laid out as [Q, 1 + M, D] behind their
positive, `cosine_similarity` and `cross_entropy` do the rest. Only this structure is theirs. Rules are those of the
trainer: positives are the prototypes as they are given, gradients reach the anchors only, pixels are told by labels and
a mask of hard ones. Nothing is slowed down on purpose: pixels of a class are looked up once, everything that the
structure leaves to tensors is done by tensors, and negatives are copied once, into their place.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = 255


class Pixels(NamedTuple):
    """What the loss is made of."""

    representations: Tensor
    """[N, D, h, w]."""
    label: Tensor
    """[N, h, w] int64, 255 where a pixel is not valid."""
    hard: Tensor
    """[N, h, w] bool."""
    prototypes: Tensor
    """[K, D], each of a class that was seen."""


Losses = Callable[[Pixels, int, int, float, torch.Generator], dict[int, Tensor]]


def per_query_losses(
    pixels: Pixels, queries: int, negatives: int, temperature: float, draws: torch.Generator
) -> dict[int, Tensor]:
    """The mean loss over `queries` anchors of each class that has hard pixels and others to be told from."""
    vectors = pixels.representations.permute(0, 2, 3, 1).flatten(0, 2)
    label, hard = pixels.label.flatten(), pixels.hard.flatten()
    present = [class_ for class_ in label.unique().tolist() if class_ != IGNORED]
    members = {class_: (label == class_).nonzero().flatten() for class_ in present}
    losses = {}
    for class_ in present:
        candidates = (hard & (label == class_)).nonzero().flatten()
        others = [other for other in present if other != class_]
        if len(candidates) == 0 or not others:
            continue
        chosen = candidates[torch.randint(len(candidates), (queries,), generator=draws)]
        with torch.no_grad():
            positive = pixels.prototypes[class_]
            likeness = F.cosine_similarity(positive, pixels.prototypes[others], dim=1)
            probabilities = (likeness / temperature).softmax(0)
            counts = _counts(probabilities, queries, negatives, draws)
            rivals = vectors[_pick(counts, [members[other] for other in others], draws)]
            against = torch.cat([positive.expand(queries, 1, -1), rivals.view(queries, negatives, -1)], dim=1)
            del rivals
        logits = F.cosine_similarity(vectors[chosen].unsqueeze(1), against, dim=2) / temperature
        losses[class_] = F.cross_entropy(logits, torch.zeros(queries, dtype=torch.int64))
    return losses


def _counts(probabilities: Tensor, queries: int, negatives: int, draws: torch.Generator) -> list[list[int]]:
    """How many negatives every anchor takes from every other class."""
    classes = torch.multinomial(probabilities.expand(queries, -1), negatives, replacement=True, generator=draws)
    return [row.bincount(minlength=len(probabilities)).tolist() for row in classes]


def _pick(counts: list[list[int]], members: list[Tensor], draws: torch.Generator) -> Tensor:
    """That many pixels of each class, one anchor after the other, [Q * M]."""
    picked = []
    for of_anchor in counts:
        for count, candidates in zip(of_anchor, members, strict=True):
            picked.append(candidates[torch.randint(len(candidates), (count,), generator=draws)])
    return torch.cat(picked)


def matrix_product_losses(
    pixels: Pixels, queries: int, negatives: int, temperature: float, draws: torch.Generator
) -> dict[int, Tensor]:
    """The same with as little waste as negatives of each anchor's own allow: a bound for what sharing them is worth.

    A class's anchors are multiplied with every pixel, and each anchor looks its negatives up among the products.
    """
    vectors = F.normalize(pixels.representations.permute(0, 2, 3, 1).flatten(0, 2), dim=1)
    directions = F.normalize(pixels.prototypes, dim=1)
    label, hard = pixels.label.flatten(), pixels.hard.flatten()
    sizes = label.bincount(minlength=IGNORED + 1)[: len(directions)]
    starts, order = sizes.cumsum(0) - sizes, label.argsort(stable=True)
    losses = {}
    for class_ in sizes.nonzero().flatten().tolist():
        candidates = (hard & (label == class_)).nonzero().flatten()
        allowed = (sizes > 0) & (torch.arange(len(directions)) != class_)
        if len(candidates) == 0 or not allowed.any():
            continue
        anchors = vectors[candidates[torch.randint(len(candidates), (queries,), generator=draws)]] / temperature
        likeness = (directions @ directions[class_] / temperature).masked_fill(~allowed, -torch.inf).softmax(0)
        classes = torch.multinomial(likeness.expand(queries, -1), negatives, replacement=True, generator=draws)
        nth = (torch.rand(classes.shape, generator=draws) * sizes[classes]).long()
        against = (anchors @ vectors.detach().T).gather(1, order[starts[classes] + nth])
        positive = anchors @ directions[class_]
        losses[class_] = (torch.logaddexp(positive, against.logsumexp(1)) - positive).mean()
    return losses
