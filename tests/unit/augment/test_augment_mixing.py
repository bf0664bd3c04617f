"""Mixing pastes exactly, and all maps alike."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.augment.maps import Maps
from trainers.augment.mixing import MixParams, apply_mix, draw_mix, partners
from trainers.config import StrongAugmentConfig

CPU = torch.device("cpu")


def batch(n: int = 4, height: int = 20, width: int = 28, classes: int = 7) -> Maps:
    """Every pixel of every map is unlike every other, so that its origin can be told."""
    g = torch.Generator().manual_seed(n)
    serial = torch.arange(n * height * width, dtype=torch.float32).view(n, height, width) / (n * height * width)
    return {
        "image": torch.stack([serial, 1 - serial, serial], 1),
        "label": torch.randint(0, classes, (n, height, width), generator=g),
        "label_representation": torch.randint(0, classes, (n, height, width), generator=g),
        "confidence": serial,
    }


def draws(n: int, seed: int = 0, probability: float = 1.0) -> MixParams:
    config = StrongAugmentConfig(mix_probability=probability)
    return draw_mix(config, n, (20, 28), torch.Generator().manual_seed(seed))


def mixed_by(maps: Maps, params: MixParams, kind: str) -> Maps:
    return apply_mix(maps, params, StrongAugmentConfig.model_validate({"mix": kind}))


@given(pairs=st.integers(1, 20))
def test_partners_are_pairs(pairs: int) -> None:
    index = partners(2 * pairs, CPU).tolist()
    assert [index[partner] for partner in index] == list(range(2 * pairs))
    assert all(partner // 2 == at // 2 and partner != at for at, partner in enumerate(index))


@pytest.mark.parametrize(("count", "expected"), [(1, [0]), (3, [1, 0, 0]), (5, [1, 0, 3, 2, 0])])
def test_the_last_of_an_odd_batch_takes_the_first(count: int, expected: list[int]) -> None:
    assert partners(count, CPU).tolist() == expected


@pytest.mark.parametrize("per_rank", [2, 4])
def test_partners_do_not_depend_on_the_ranks_while_shares_are_even(per_rank: int) -> None:
    shares = [partners(per_rank, CPU) + rank * per_rank for rank in range(8 // per_rank)]
    assert torch.equal(torch.cat(shares), partners(8, CPU))


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 7))
def test_cutmix_pastes_the_partners_box_exactly_in_every_map(seed: int, n: int) -> None:
    maps, index = batch(n), partners(n, CPU)
    mixed = mixed_by(maps, draws(n, seed), "cutmix")
    pasted = mixed["confidence"] != maps["confidence"]
    for at in range(n):
        rows, columns = pasted[at].any(1).nonzero().flatten(), pasted[at].any(0).nonzero().flatten()
        box = torch.zeros(20, 28, dtype=torch.bool)
        box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        assert torch.equal(pasted[at], box)
        # The area is drawn from 0.1 to 0.5; rounding the sides to whole pixels adds up to half a pixel each.
        assert 0.09 < box.float().mean().item() < 0.55
    for key, values in maps.items():
        mask = pasted[:, None] if key == "image" else pasted
        assert torch.equal(mixed[key], torch.where(mask, values[index], values))
        assert mixed[key].dtype == values.dtype


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), classes=st.integers(1, 9))
def test_classmix_pastes_half_of_the_partners_classes(seed: int, classes: int) -> None:
    maps = batch(4, classes=classes)
    maps["label"][:, :3] = 255
    mixed = mixed_by(maps, draws(4, seed), "classmix")
    pasted = mixed["confidence"] != maps["confidence"]
    source = maps["label"][partners(4, CPU)]
    for at in range(4):
        present = set(source[at].unique().tolist()) - {255}
        taken = set(source[at][pasted[at]].unique().tolist())
        assert taken <= present
        assert len(taken) == (len(present) + 1) // 2
        assert torch.equal(pasted[at], torch.isin(source[at], torch.tensor(sorted(taken))))
    for key, values in maps.items():
        mask = pasted[:, None] if key == "image" else pasted
        assert torch.equal(mixed[key], torch.where(mask, values[partners(4, CPU)], values))


def test_classmix_takes_every_class_about_half_of_the_time() -> None:
    maps = batch(2, classes=6)
    taken = torch.zeros(6)
    for seed in range(200):
        pasted = mixed_by(maps, draws(2, seed), "classmix")["confidence"] != maps["confidence"]
        taken[maps["label"][1][pasted[0]].unique()] += 1
    assert (taken / 200 - 0.5).abs().max() < 0.15  # four standard deviations are 0.14


def test_classmix_of_a_partner_that_is_all_ignored_pastes_nothing() -> None:
    maps = batch(2)
    maps["label"][1] = 255
    mixed = mixed_by(maps, draws(2), "classmix")
    assert torch.equal(mixed["image"][0], maps["image"][0])


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), height=st.integers(16, 60), width=st.integers(16, 60))
def test_the_published_box_is_half_of_the_image_up_to_half_a_row(seed: int, height: int, width: int) -> None:
    config = StrongAugmentConfig(box="half", mix="cutout")
    params = draw_mix(config, 5, (height, width), torch.Generator().manual_seed(seed))
    boxes = apply_mix(batch(5, height, width), params, config)["label"] == 255
    for box in boxes:
        columns, area = int(box.any(0).sum()), int(box.sum())
        assert area == columns * int(box.any(1).sum())
        assert width / 2 < columns < width
        assert abs(area - height * width / 2) <= columns / 2


def test_every_width_of_the_published_box_is_as_likely() -> None:
    config = StrongAugmentConfig(box="half")
    widths = draw_mix(config, 4200, (20, 28), torch.Generator().manual_seed(0)).width * 28
    values, counts = torch.round(widths).unique(return_counts=True)
    assert values.tolist() == list(range(15, 28))
    # 4200 / 13 = 323, a standard deviation of 17.
    assert (counts - 323).abs().max() < 69


def test_area_and_aspect_of_a_box_keep_to_their_ranges() -> None:
    config = StrongAugmentConfig(box_area=(0.2, 0.3), box_aspect=(0.4, 3.0))
    params = draw_mix(config, 4000, (20, 28), torch.Generator().manual_seed(0))
    area, aspect = params.height * params.width, params.height / params.width
    for values, low, high in ((area, 0.2, 0.3), (aspect, 0.4, 3.0)):
        assert low - 1e-6 < values.min() < 1.01 * low
        assert 0.99 * high < values.max() < high + 1e-6


def test_neither_the_box_nor_its_ranges_change_another_draw() -> None:
    one, other = StrongAugmentConfig(), StrongAugmentConfig(box="half", classmix="published")
    here, there = (draw_mix(config, 50, (20, 28), torch.Generator().manual_seed(0)) for config in (one, other))
    for name in ("apply", "top", "left"):
        assert torch.equal(getattr(here, name), getattr(there, name))


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), classes=st.integers(1, 9), ignored=st.booleans())
def test_published_classmix_rounds_down_and_counts_the_ignored_label(seed: int, classes: int, ignored: bool) -> None:
    config, maps = StrongAugmentConfig(mix="classmix", classmix="published"), batch(4, classes=classes)
    if ignored:
        maps["label"][:, :3] = 255
    mixed = apply_mix(maps, draw_mix(config, 4, (20, 28), torch.Generator().manual_seed(seed)), config)
    pasted = mixed["confidence"] != maps["confidence"]
    source = maps["label"][partners(4, CPU)]
    for at in range(4):
        taken = source[at][pasted[at]].unique()
        assert len(taken) == len(source[at].unique()) // 2
        assert torch.equal(pasted[at], torch.isin(source[at], taken))


def test_published_classmix_takes_the_ignored_label_as_often_as_another() -> None:
    config, maps = StrongAugmentConfig(mix="classmix", classmix="published"), batch(2, classes=3)
    maps["label"][:, :3] = 255
    taken = 0
    for seed in range(200):
        mixed = apply_mix(maps, draw_mix(config, 2, (20, 28), torch.Generator().manual_seed(seed)), config)
        taken += int(mixed["confidence"][0, 0, 0] != maps["confidence"][0, 0, 0])
    assert abs(taken / 200 - 0.5) < 0.15  # two of four classes; four standard deviations are 0.14


def test_cutout_leaves_a_box_of_nothing() -> None:
    maps = batch()
    mixed = mixed_by(maps, draws(4), "cutout")
    box = mixed["label"] == 255
    assert (box.float().mean((1, 2)) > 0.09).all()
    for key, empty in (("label", 255), ("label_representation", 255), ("confidence", 0)):
        assert torch.equal(mixed[key], torch.where(box, empty, maps[key]))
    mean = maps["image"].mean((-2, -1), keepdim=True)
    assert torch.equal(mixed["image"], torch.where(box[:, None], mean, maps["image"]))


@pytest.mark.parametrize("kind", ["cutmix", "classmix", "cutout"])
def test_images_that_are_not_chosen_stay_bit_for_bit(kind: str) -> None:
    maps = batch()
    params = draws(4)._replace(apply=torch.tensor([True, False, False, True]))
    mixed = mixed_by(maps, params, kind)
    for key, values in maps.items():
        assert torch.equal(mixed[key][1:3], values[1:3])
    assert not torch.equal(mixed["image"][0], maps["image"][0])


def test_the_share_of_mixed_images_is_the_probability() -> None:
    assert abs(draws(4000, probability=0.3).apply.float().mean() - 0.3) < 0.029  # four standard deviations
    assert draws(100).apply.all()


def test_no_mixing_returns_the_maps_themselves() -> None:
    maps = batch()
    assert mixed_by(maps, draws(4), "none") is maps
