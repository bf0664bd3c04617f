"""Drawn labels hold every class, and change no more than that takes."""

import itertools
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.data.draw import cover_classes
from trainers.errors import DataError

CLASSES = tuple("abcdef")


class Masks:
    """Classes in the masks of images a0, a1, ..., and which of them were read."""

    def __init__(self, kinds: Sequence[Sequence[int]]) -> None:
        self.kinds = {f"a{at}": frozenset(classes) for at, classes in enumerate(kinds)}
        self.read: list[str] = []

    def __call__(self, names: Sequence[str]) -> Mapping[str, frozenset[int]]:
        self.read += names
        return {name: self.kinds[name] for name in names}


def cover(masks: Masks, count: int) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cover_classes(list(masks.kinds), count, CLASSES, masks)


kinds = st.lists(st.sets(st.integers(0, 5), max_size=3), min_size=1, max_size=14)


@settings(max_examples=150)
@given(kinds=kinds, data=st.data())
def test_every_class_that_occurs_is_held_by_as_many_images_as_were_asked_for(
    kinds: list[list[int]], data: st.DataObject
) -> None:
    masks = Masks(kinds)
    count = data.draw(st.integers(min(6, len(kinds)), len(kinds)))  # six classes need six images at most
    chosen = cover(masks, count)
    assert len(set(chosen)) == len(chosen) == count
    assert frozenset().union(*(masks.kinds[name] for name in chosen)) == frozenset().union(*masks.kinds.values())


@settings(max_examples=100)
@given(kinds=kinds)
def test_more_images_include_the_fewer(kinds: list[list[int]]) -> None:
    chosen = [set(cover(Masks(kinds), count)) for count in range(min(6, len(kinds)), len(kinds) + 1)]
    assert all(few < many for few, many in itertools.pairwise(chosen))


def test_a_draw_that_holds_all_classes_stays_and_no_other_mask_is_read() -> None:
    masks = Masks([[0, 1], [2, 3], [4, 5], [0], [1]])
    assert cover(masks, 3) == ["a0", "a1", "a2"]
    assert masks.read == ["a0", "a1", "a2"]


def test_a_missing_class_takes_the_place_of_the_last_image_that_is_not_needed() -> None:
    masks = Masks([[0], [1, 2], [0, 3], [0], [4, 5], [4, 5]])
    assert sorted(cover(masks, 4)) == ["a0", "a1", "a2", "a4"]


def test_few_images_with_many_classes_are_found_where_the_first_ones_are_too_many() -> None:
    masks = Masks([[0], [1], [2], [3, 4, 5], [0, 1, 2]])
    assert sorted(cover(masks, 2)) == ["a3", "a4"]


def test_fewer_images_than_hold_all_classes_are_refused() -> None:
    masks = Masks([[0, 1], [2, 3], [4, 5]])
    with pytest.raises(DataError, match=r"hold each class once, got 2, and 3 were needed for 6 classes: label more"):
        cover(masks, 2)


def test_a_class_in_no_mask_draws_a_warning_with_its_name() -> None:
    masks = Masks([[0, 1], [2, 3], [4]])
    with pytest.warns(UserWarning, match=r"no training image that may be labelled holds f$"):
        assert len(cover_classes(["a0", "a1", "a2"], 3, CLASSES, masks)) == 3


def test_the_rarest_class_is_served_first_so_that_fewer_images_are_exchanged() -> None:
    # By number, class 0 would choose a2, which the image of class 1 makes needless, and a1 would have to go.
    masks = Masks([[2, 3, 4, 5], [], [0], [0, 1]])
    assert sorted(cover(masks, 3)) == ["a0", "a1", "a3"]


def test_the_order_is_that_of_the_seed_not_of_the_names() -> None:
    order = [f"a{at}" for at in np.random.default_rng(3).permutation(10)]
    masks = Masks([list(range(6))] * 10)
    assert cover_classes(order, 4, CLASSES, masks) == order[:4]
