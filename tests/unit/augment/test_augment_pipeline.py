"""The laws of the whole: ranks, steps, devices without waiting, floats."""

from collections.abc import Callable

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from trainers.augment.maps import Maps
from trainers.augment.pipeline import labelled_augment, strong_augment, weak_augment
from trainers.config import LabelledAugmentConfig, StrongAugmentConfig, WeakAugmentConfig

Augment = Callable[[Maps, int, int, int], Maps]

WEAK = WeakAugmentConfig(scale=(0.75, 1.75), flip=0.5, crop=(16, 20))
LABELLED = LabelledAugmentConfig(scale=(0.5, 1.5), scale_draw="uniform", flip=0.5, jitter=0.8, blur=0.5)
STRONG = StrongAugmentConfig(scale=(0.8, 1.5), shift=0.2, flip=0.5)
OFF = StrongAugmentConfig(jitter=0, blur=0, mix="none")


def batch(n: int = 8, height: int = 24, width: int = 32) -> Maps:
    g = torch.Generator().manual_seed(0)
    label = torch.randint(0, 11, (n, height // 4, width // 4), generator=g)
    return {
        "image": torch.rand(n, 3, height, width, generator=g),
        "label": label.repeat_interleave(4, 1).repeat_interleave(4, 2),
        "confidence": torch.rand(n, height, width, generator=g),
        "indicator": torch.rand(n, height, width, generator=g),
    }


def weak(maps: Maps, step: int, rank: int, world_size: int) -> Maps:
    return weak_augment(maps, WEAK, 5, "labelled", step, rank, world_size)


def weak_padded(maps: Maps, step: int, rank: int, world_size: int) -> Maps:
    """Weak augmentation of images that are smaller than their tensor, each by another amount."""
    share = maps["image"].shape[0]
    sizes = torch.stack([torch.arange(24, 16, -1), torch.arange(32, 24, -1)], 1)[rank * share :][:share].float()
    device = maps["image"].device
    return weak_augment(maps, WEAK, 5, "labelled", step, rank, world_size, sizes.to(device))


def labelled(maps: Maps, step: int, rank: int, world_size: int) -> Maps:
    return labelled_augment(maps, LABELLED, WEAK.crop, 5, step, rank, world_size)


def strong(**changes: object) -> Augment:
    config = StrongAugmentConfig.model_validate(STRONG.model_dump() | changes)
    return lambda maps, step, rank, world_size: strong_augment(maps, config, 5, step, rank, world_size)


PUBLISHED = {
    "order": "mix_first", "place": "anywhere", "scale": (0.5, 1.5), "scale_draw": "uniform", "box": "half",
    "classmix": "published",
}  # fmt: skip
ONLY = {"jitter": 0, "blur": 0, "mix": "none", "scale": (1, 1), "shift": 0, "flip": 0}
EVERY: dict[str, Augment] = {
    "weak": weak,
    "weak padded": weak_padded,
    "labelled": labelled,
    "strong": strong(),
    "published": strong(**PUBLISHED),
    "published classmix": strong(**PUBLISHED, mix="classmix"),
    "published cutout": strong(**PUBLISHED, mix="cutout", mix_probability=0.7),
    "flip last": strong(**ONLY | {"order": "mix_first", "flip": 0.5}),
    "geometry": strong(**ONLY | {"scale": (0.8, 1.5), "shift": 0.2, "flip": 0.5}),
    "jitter": strong(**ONLY | {"jitter": 0.8}),
    "blur": strong(**ONLY | {"blur": 0.8}),
    "cutmix": strong(**ONLY | {"mix": "cutmix", "mix_probability": 0.7}),
    "classmix": strong(**ONLY | {"mix": "classmix", "mix_probability": 0.7}),
    "cutout": strong(**ONLY | {"mix": "cutout", "mix_probability": 0.7}),
}
every = pytest.mark.parametrize("augment", EVERY.values(), ids=EVERY)


def equal(one: Maps, other: Maps) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@every
@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_on_their_shares_do_what_one_process_does_on_the_whole(augment: Augment, world_size: int) -> None:
    maps, share = batch(), 8 // world_size
    parts = [
        augment({key: values[rank * share :][:share] for key, values in maps.items()}, 3, rank, world_size)
        for rank in range(world_size)
    ]
    whole = augment(maps, 3, 0, 1)
    assert equal({key: torch.cat([part[key] for part in parts]) for key in whole}, whole)


@every
def test_a_step_repeats_exactly_and_the_next_one_differs(augment: Augment) -> None:
    assert equal(augment(batch(), 3, 0, 1), augment(batch(), 3, 0, 1))
    assert not equal(augment(batch(), 3, 0, 1), augment(batch(), 4, 0, 1))


@every
def test_the_input_is_left_as_it_was(augment: Augment) -> None:
    maps = batch()
    augment(maps, 3, 0, 1)
    assert equal(maps, batch())


@every
def test_no_value_has_to_be_known_on_the_host(augment: Augment) -> None:
    real = augment(batch(), 3, 0, 1)
    with FakeTensorMode() as mode:
        fake = augment({key: mode.from_tensor(values) for key, values in batch().items()}, 3, 0, 1)
    for key, values in real.items():
        assert (fake[key].shape, fake[key].dtype) == (values.shape, values.dtype)


@every
def test_maps_keep_their_kinds_and_ranges(augment: Augment) -> None:
    result = augment(batch(), 3, 0, 1)
    assert {key: values.dtype for key, values in result.items()} == {
        "image": torch.float32, "label": torch.int64, "confidence": torch.float32, "indicator": torch.float32
    }  # fmt: skip
    assert torch.equal(result["image"], result["image"].clamp(0, 1))
    assert set(result["label"].unique().tolist()) <= {*range(11), 255}


@every
def test_a_confidence_of_097_stays_that_float(augment: Augment) -> None:
    maps = batch() | {"confidence": torch.full((8, 24, 32), 0.97), "indicator": torch.full((8, 24, 32), 0.7)}
    result = augment(maps, 3, 0, 1)
    ignored = result["label"] == 255
    assert torch.equal(result["confidence"], torch.where(ignored, 0.0, torch.tensor(0.97)))
    assert torch.equal(result["indicator"], torch.where(ignored, 0.0, torch.tensor(0.7)))


@every
def test_results_do_not_depend_on_autocast(augment: Augment) -> None:
    expected = augment(batch(), 3, 0, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert equal(augment(batch(), 3, 0, 1), expected)


@every
def test_gradients_do_not_flow_through(augment: Augment) -> None:
    maps = batch()
    maps["image"].requires_grad_()
    assert not augment(maps, 3, 0, 1)["image"].requires_grad


def test_what_is_switched_off_returns_the_input_bit_for_bit() -> None:
    maps = batch()
    assert equal(strong_augment(maps, OFF, 0, 0, 0, 1), maps)
    assert equal(weak_augment(maps, WeakAugmentConfig(), 0, "labelled", 0, 0, 1), maps)
    assert equal(weak_augment(maps, WeakAugmentConfig(crop=(24, 32)), 0, "labelled", 0, 0, 1), maps)


def test_mixing_first_lets_one_image_have_one_colour_change() -> None:
    flat = batch() | {"image": torch.full((8, 3, 24, 32), 0.5)}
    for order, colours in (("jitter_first", 2), ("mix_first", 1)):
        changes = ONLY | {"order": order, "jitter": 1.0, "mix": "cutmix"}
        images = strong(**changes)(flat, 3, 0, 1)["image"]
        assert [len(image.flatten(1).unique(dim=1).T) for image in images] == [colours] * 8


def test_mixing_first_flips_the_mixed_image_and_not_its_parts() -> None:
    mixed, flipped = (
        strong(**ONLY | {"order": "mix_first", "mix": "cutmix", "flip": p})(batch(), 3, 0, 1) for p in (0, 1)
    )
    assert equal(flipped, {key: values.flip(-1) for key, values in mixed.items()})
    parts = strong(**ONLY | {"order": "jitter_first", "mix": "cutmix", "flip": 1})(batch(), 3, 0, 1)
    assert not torch.equal(parts["label"], flipped["label"])


def test_the_order_changes_no_draw() -> None:
    first, last = (
        strong(**ONLY | {"order": order, "flip": 0.5})(batch(), 3, 0, 1) for order in ("jitter_first", "mix_first")
    )
    assert torch.equal(first["label"], last["label"])
    assert torch.allclose(first["image"], last["image"], atol=1e-5)


def test_labelled_augmentation_without_colours_is_the_weak_one() -> None:
    same = LabelledAugmentConfig(scale=WEAK.scale, flip=WEAK.flip)
    assert equal(labelled_augment(batch(), same, WEAK.crop, 5, 3, 0, 1), weak(batch(), 3, 0, 1))


def test_labelled_colours_leave_geometry_and_labels_alone() -> None:
    colours = LabelledAugmentConfig(scale=WEAK.scale, flip=WEAK.flip, jitter=1.0, blur=1.0)
    coloured, plain = labelled_augment(batch(), colours, WEAK.crop, 5, 3, 0, 1), weak(batch(), 3, 0, 1)
    assert all(torch.equal(coloured[key], plain[key]) for key in plain if key != "image")
    assert all(not torch.equal(one, other) for one, other in zip(coloured["image"], plain["image"], strict=True))


def test_weak_batches_of_one_step_are_augmented_apart() -> None:
    one, other = (weak_augment(batch(), WEAK, 5, purpose, 3, 0, 1) for purpose in ("labelled", "unlabelled"))
    assert not equal(one, other)


def test_switching_one_part_off_leaves_the_others_draws_alone() -> None:
    with_jitter, without = strong(blur=0)(batch(), 3, 0, 1), strong(blur=0, jitter=0)(batch(), 3, 0, 1)
    assert torch.equal(with_jitter["label"], without["label"])
    assert torch.equal(with_jitter["confidence"], without["confidence"])


def test_weak_augmentation_has_the_size_of_its_crop_and_strong_keeps_the_size() -> None:
    assert weak(batch(), 0, 0, 1)["image"].shape == (8, 3, 16, 20)
    assert strong()(batch(), 0, 0, 1)["image"].shape == (8, 3, 24, 32)
