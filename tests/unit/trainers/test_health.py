"""Health of a run from its state alone: drift and angles of prototypes, missing ones, gap of teacher and student."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.quality import entropy
from torch import nn

from trainers.css.prototypes import Prototypes
from trainers.health import normalised_entropy, prototype_health, teacher_student_gap


def turned(*degrees: float | None) -> Prototypes:
    """A prototype in the plane for each angle, of several lengths; none: never seen."""
    seen = torch.tensor([angle is not None for angle in degrees])
    radians = torch.tensor([0.0 if angle is None else math.radians(angle) for angle in degrees])
    lengths = torch.arange(1.0, len(degrees) + 1).unsqueeze(1)
    values = lengths * torch.stack([radians.cos(), radians.sin()], dim=1)
    return Prototypes(torch.where(seen.unsqueeze(1), values, torch.zeros_like(values)), seen)


UNSEEN = Prototypes.empty(5, 2)


def test_drift_is_the_mean_of_one_minus_cosine_over_the_classes_seen_both_times() -> None:
    health = prototype_health(turned(0, 90, 200, None), turned(60, 0, None, 10))
    assert health["health/prototype_drift"] == pytest.approx((0.5 + 1.0) / 2)


def test_a_drift_of_a_twentieth_of_a_degree_is_measured() -> None:
    # 1 - cos is 4e-7 here: float32 would say so to within a seventh, but its vectors tell the angle to 1e-4.
    expected = 1 - math.cos(math.radians(0.05))
    assert prototype_health(turned(40.05), turned(40))["health/prototype_drift"] == pytest.approx(expected, rel=1e-2)


def test_prototypes_that_only_grow_do_not_drift() -> None:
    now = turned(0, 90)
    health = prototype_health(now, Prototypes(now.values * 3, now.seen))
    assert health["health/prototype_drift"] == pytest.approx(0, abs=1e-7)  # directions of float32 vectors


def test_the_smallest_angle_is_that_of_the_closest_two_prototypes() -> None:
    health = prototype_health(turned(0, 100, 130, 260, None), UNSEEN)
    assert health["health/prototype_angle_min"] == pytest.approx(30, abs=1e-4)  # float32 vectors


def test_classes_never_seen_are_at_no_angle_to_any() -> None:
    health = prototype_health(turned(None, 0, None, 150, None), UNSEEN)
    assert health["health/prototype_angle_min"] == pytest.approx(150, abs=1e-4)


def test_two_prototypes_in_one_direction_have_no_angle() -> None:
    # The arc cosine of 1 - 1e-16, from rounding in float64, is 1e-6 degrees.
    assert prototype_health(turned(45, 45), turned(0, 0))["health/prototype_angle_min"] == pytest.approx(0, abs=1e-5)


def test_classes_without_a_prototype_are_counted() -> None:
    assert prototype_health(turned(0, None, 90, None, 7), UNSEEN)["health/classes_without_prototype"] == 2.0


@pytest.mark.parametrize(("now", "missing"), [((None, None), 2.0), ((0, None), 1.0)])
def test_nothing_is_said_of_drifts_and_angles_that_do_not_exist(now: tuple[float | None, ...], missing: float) -> None:
    before = turned(None, None)
    assert prototype_health(turned(*now), before) == {"health/classes_without_prototype": missing}


def test_the_gap_is_the_length_of_the_difference_over_that_of_the_student() -> None:
    student = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    teacher = copy.deepcopy(student)
    assert teacher_student_gap(teacher, student) == 0
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.mul_(0.75)
    assert teacher_student_gap(teacher, student) == pytest.approx(0.25)


@settings(max_examples=50)
@given(counts=st.lists(st.integers(0, 10**7), min_size=2, max_size=8).filter(any))
def test_entropy_is_that_of_the_shares_over_its_maximum(counts: list[int]) -> None:
    expected = entropy([count / sum(counts) for count in counts], len(counts))
    assert normalised_entropy(torch.tensor(counts)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("counts", "value"), [([5, 5, 5, 5], 1.0), ([0, 9, 0, 0], 0.0), ([3, 3, 0, 0], 0.5)])
def test_entropy_is_one_where_classes_are_alike_and_zero_where_one_is_alone(counts: list[int], value: float) -> None:
    assert normalised_entropy(torch.tensor(counts)) == pytest.approx(value)
