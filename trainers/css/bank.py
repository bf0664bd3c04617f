"""A ring of pixels for each class: PixCon's bank (arXiv 2607.03068) with InfoNCE against it, and U2PL's negatives.

Shapes are fixed and nothing looks at the data from the host. Ranks draw as one process would: each offers its first
pixels in the order of common draws, and the first of all offers are taken, so that every rank keeps the same bank.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.augment.maps import rank_share
from trainers.config import IGNORE, BankConfig, TrainConfig
from trainers.distributed import sum_over_ranks
from trainers.transfer import send

_NEVER = 2.0
"""Above every draw: the place in the order of what was not drawn."""
_LAST = 2**32
"""Above every number of `scattered`."""


class Bank(NamedTuple):
    """A ring of S places for each class."""

    values: Tensor
    """[K, S, D], of length 1; zeros where nothing was put yet."""
    entered: Tensor
    """[K] int64, all that was ever put in."""

    @classmethod
    def empty(cls, num_classes: int, dim: int, size: int, device: torch.device) -> Bank:
        """Return one in which nothing is."""
        values = torch.zeros(num_classes, size, dim, device=device)
        return cls(values, torch.zeros(num_classes, dtype=torch.int64, device=device))


def empty_bank(config: TrainConfig, device: torch.device) -> Bank | None:
    """Return the bank that a training starts with; none where no loss reads it."""
    if config.ring_size == 0:
        return None
    return Bank.empty(config.num_classes, config.model.representation_dim, config.ring_size, device)


class BankDraws(NamedTuple):
    """Uniform numbers in [0, 1) that order what is drawn from; the least come first."""

    pixels: Tensor
    """[N, h, w], of this rank's labelled images."""
    anchors: Tensor
    """[K, A], the same on all ranks."""


class Chosen(NamedTuple):
    """A step's pixels of each class, over all ranks, the same on every rank."""

    entries: Tensor
    """[K, A, D], of length 1; with gradient where they are this rank's."""
    valid: Tensor
    """[K, A] bool, first those that there are."""
    own: Tensor
    """[K, A] bool, whether it is this rank's."""


def draw_bank(labels: Tensor, size: tuple[int, int], config: TrainConfig, generator: torch.Generator,
              rank: int = 0, world_size: int = 1) -> BankDraws:  # fmt: skip
    """Draw on the CPU for all ranks' images, and return this rank's share on the device of `labels` [N, H, W].

    Args:
        labels: of which only the number and the device are read.
        size: h and w of the network's maps.
        config: K and A.
        generator: of the CPU, the same on all ranks.
        rank: 0 to world_size - 1.
        world_size: ranks that share the batch.
    """
    pixels = torch.rand(len(labels) * world_size, *size, generator=generator)
    anchors = torch.rand(config.num_classes, config.bank.anchors, generator=generator)
    (share,) = rank_share((pixels,), rank, len(labels), labels.device)
    return BankDraws(share, send(anchors, labels.device))


@torch.no_grad()
def admitted(logits: Tensor, labels: Tensor, config: TrainConfig) -> Tensor:
    """Return under which class pixels enter, [N, h, w], 255 where they do not.

    Args:
        logits: [N, K, h, w] of the student.
        labels: [N, h, w], 255 ignored.
        config: `bank.pixels` and delta_u.
    """
    if config.bank.pixels == "labelled":
        return labels
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    if config.bank.pixels == "confident":
        return torch.where((confidence >= config.thresholds.delta_u) & (labels != IGNORE), predicted, IGNORE)
    return torch.where(predicted == labels, labels, IGNORE)


def choose(
    representations: Tensor, classes: Tensor, draws: BankDraws, config: TrainConfig, rank: int, world_size: int
) -> Chosen:
    """Choose A pixels of each class without repeating any, or all where there are fewer.

    Args:
        representations: [N, D, h, w] of this rank, with gradient.
        classes: [N, h, w] of `admitted`.
        draws: of `draw_bank`.
        config: K and A.
        rank: of this rank.
        world_size: ranks.
    """
    count, anchors = config.num_classes, config.bank.anchors
    pixels, classes, place = (
        representations.permute(0, 2, 3, 1).flatten(0, 2),
        classes.flatten(),
        draws.pixels.flatten(),
    )
    last = torch.where(classes == IGNORE, count, classes)
    order = torch.argsort(last.double() + place.double(), stable=True)
    tally = torch.zeros(count + 1, dtype=torch.int64, device=last.device).scatter_add_(0, last, torch.ones_like(last))
    tally = tally[:count]
    nth = torch.arange(anchors, device=last.device)
    at = order[((tally.cumsum(0) - tally).unsqueeze(1) + nth).clamp(max=len(order) - 1)]
    valid = nth < tally.unsqueeze(1)
    return _chosen(pixels, at, valid, place[at], rank, world_size)


def choose_members(
    representations: Tensor, members: Tensor, order: Tensor, most: int, rank: int = 0, world_size: int = 1
) -> Chosen:
    """Choose the first A pixels of each class, where a pixel may be of several, or all where there are fewer.

    Args:
        representations: [N, D, h, w] of this rank.
        members: [N, K, h, w] bool.
        order: [N x h x w] of `scattered`, of which no two are alike.
        most: A.
        rank: of this rank.
        world_size: ranks.
    """
    pixels = representations.permute(0, 2, 3, 1).flatten(0, 2)
    of_class = members.transpose(0, 1).flatten(1)
    first, at = torch.where(of_class, order, _LAST).topk(min(most, len(pixels)), dim=1, largest=False)
    missing = most - first.shape[1]
    first, at = F.pad(first, (0, missing), value=_LAST), F.pad(at, (0, missing))
    return _chosen(pixels, at, first < _LAST, first / _LAST, rank, world_size)


def _chosen(pixels: Tensor, at: Tensor, valid: Tensor, place: Tensor, rank: int, world_size: int) -> Chosen:
    """Return the pixels [P, D] at `at` [K, A] or, of several ranks, those of all ranks' that come first."""
    entries = F.normalize(pixels.index_select(0, at.flatten()), dim=1).view(*at.shape, -1)
    if world_size == 1:
        return Chosen(entries, valid, valid)
    return _over_ranks(entries, torch.where(valid, place, _NEVER), rank, world_size)


def bank_loss(chosen: Chosen, bank: Bank, draws: BankDraws, config: BankConfig) -> Tensor:
    """Return this rank's part of the mean over the anchors a of -log(own / all), sums of e^(a . b / tau) over the bank.

    `own` is over the b of a's class. Anchors of a class of which the bank holds nothing do not count. The sum over the
    ranks is the mean.
    """
    count, size, _ = bank.values.shape
    anchors = chosen.valid.shape[1]
    place = torch.where(chosen.valid, draws.anchors, _NEVER).flatten()
    picked = place.topk(min(config.anchors_in_all, count * anchors), largest=False).indices
    of_class = picked // anchors
    cosines = chosen.entries.flatten(0, 1).index_select(0, picked) @ bank.values.flatten(0, 1).T
    logits = (cosines / config.temperature).view(-1, count, size)
    filled = torch.arange(size, device=place.device) < bank.entered.unsqueeze(1)
    same = torch.arange(count, device=place.device) == of_class.unsqueeze(1)
    nothing = torch.finfo(logits.dtype).min
    of_all = logits.masked_fill(~filled, nothing).flatten(1).logsumexp(dim=1)
    positive = logits.masked_fill(~(filled & same.unsqueeze(2)), nothing).flatten(1).logsumexp(dim=1)
    counts = chosen.valid.flatten()[picked] & (bank.entered[of_class] > 0)
    mine = counts & chosen.own.flatten()[picked]
    return torch.where(mine, of_all - positive, 0.0).sum() / counts.sum().clamp(min=1)


@torch.no_grad()
def put(bank: Bank, chosen: Chosen) -> Bank:
    """Return the bank with the chosen pixels in it, in place of the oldest."""
    _, size, dim = bank.values.shape
    at = (bank.entered.unsqueeze(1) + torch.arange(chosen.valid.shape[1], device=bank.entered.device)) % size
    at = at.unsqueeze(2).expand(-1, -1, dim)
    entries = torch.where(chosen.valid.unsqueeze(2), chosen.entries.detach(), bank.values.gather(1, at))
    return Bank(bank.values.scatter(1, at, entries), bank.entered + chosen.valid.sum(1))


def _over_ranks(entries: Tensor, place: Tensor, rank: int, world_size: int) -> Chosen:
    """Return the first of what all ranks offer: K x (D + 1) x A numbers of each, in one message."""
    count, anchors, dim = entries.shape
    offers = torch.zeros(world_size, count, anchors, dim + 1, device=entries.device)
    offers[rank] = torch.cat([entries.detach(), place.unsqueeze(2)], dim=2)
    (offers,) = sum_over_ranks([offers], world_size)
    offers = offers.transpose(0, 1).flatten(1, 2)
    first = offers[..., -1].argsort(dim=1, stable=True)[:, :anchors]
    valid, own = offers[..., -1].gather(1, first) < _NEVER, first // anchors == rank
    of_all = offers[..., :-1].gather(1, first.unsqueeze(2).expand(-1, -1, dim))
    mine = entries.gather(1, (first % anchors).unsqueeze(2).expand(-1, -1, dim))
    return Chosen(torch.where(own.unsqueeze(2), mine, of_all), valid, own & valid)
