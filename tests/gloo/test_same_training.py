"""Two and four ranks on shares of a batch train what one process trains on the whole."""

from typing import NamedTuple

import pytest
from ranks import Processes, Ranks
from reference.tiny import differences, tiny_config
from reference.vits import DPT
from training import CPU, Settings, Trained, far_apart, reported_otherwise, trained

from trainers.data.splits import open_splits
from trainers.loader import load_batch
from trainers.methods import METHODS
from trainers.targets import StepContext

SHARED = {
    "model.norm": "group",  # statistics of an image, and not of a rank's images
    "loss.lambda_c": 1e-9,  # ranks draw anchors of their own; a weight of zero would leave out valid and hard pixels
    "schedule.steps": 3,
    "schedule.evaluate_every": 3,
    "schedule.unlabelled_batch": 8,  # two images each of four ranks, so that mixing has a partner
}
MORE: dict[str, Settings] = {
    "representation": {"css.label_strategy": "representation", "ema.prototype_source": "student"},
    "image_share": {"css.label_strategy": "logit", "loss.unsupervised": "image_share", "thresholds.delta_u": 0.1},
    "hard examples and class weights": {
        "loss.supervised": "ohem",
        "loss.ohem_threshold": 0.08,  # about one in eleven: some pixels of a young network are above, some below
        "loss.ohem_min_kept": 100,
        "loss.class_weights": tuple(0.5 + 0.1 * at for at in range(11)),
    },
    "apart": {"schedule.joint_forward": False},
    "classmix": {"augment.strong.mix": "classmix", "css.indicator": "confidence"},
    "published augmentation": {
        "augment.labelled": {"scale": (0.5, 1.5), "scale_draw": "uniform", "flip": 0.5, "jitter": 0.8, "blur": 0.5},
        "augment.strong.order": "mix_first",
        "augment.strong.place": "anywhere",
        "augment.strong.box": "half",
        "augment.strong.flip": 0.5,
    },
    "a ViT": {**DPT, "optimizer.encoder_lr_factor": 0.1, "optimizer.layer_decay": 0.7, "model.checkpointing": True},
    "a bank of labelled pixels": {**METHODS["pixcon"], "bank.pixels": "labelled", "bank.anchors_in_all": 100},
    "weak labels": {"loss.lambda_w": 1.0, "css.veto": True},
    "queues of unreliable pixels": {**METHODS["u2pl"], "unreliable.anchor_confidence": 0.05, "unreliable.entries": 7},
    "an auxiliary head": {
        **METHODS["unimatch_v2"],
        "model.auxiliary": "inner",
        "loss.auxiliary_targets": "all",
        "loss.class_weights": tuple(0.5 + 0.1 * at for at in range(11)),
    },
    "an indicator by a discriminator": {"css.indicator": "discriminator", "adversary.weight_labelled": 0.01},
    "cutout, student": {"augment.strong.mix": "cutout", "ema.prototype_source": "student"},
}
CASES: dict[str, Settings] = METHODS | MORE
LIKE_OTHERS = METHODS.keys() - {"css_mix", "css_cross", "pixcon", "u2pl", "cps", "adversarial"}
"""What these exchange between ranks, others do, too: on four ranks they only repeat what two have shown."""
IN_PARTS: Settings = {"schedule.accumulate": 2, "ema.prototype_source": "student", "css.label_strategy": "cross"}


class Worlds(NamedTuple):
    one: Trained
    ranks: list[Trained]


@pytest.fixture(scope="module")
def alone() -> dict[str, Trained]:
    """What one process trained, by case."""
    return {}


def of_ranks(ranks: int, case: str) -> object:
    repeats = ranks == 4 and case in LIKE_OTHERS
    return pytest.param(f"{ranks} ranks: {case}", marks=[pytest.mark.long] if repeats else [])


@pytest.fixture(scope="module", params=[of_ranks(ranks, case) for ranks in (2, 4) for case in CASES])
def worlds(request: pytest.FixtureRequest, processes: Processes, alone: dict[str, Trained]) -> Worlds:
    ranks, case = request.param.split(" ranks: ")
    overrides = SHARED | CASES[case]
    overrides["loss.lambda_c"] = min(overrides["loss.lambda_c"], 1e-9)
    if case not in alone:
        alone[case] = trained(overrides)
    return Worlds(alone[case], Ranks(int(ranks), processes).call(trained, overrides))


@pytest.fixture(scope="module")
def in_parts(two_ranks: Ranks) -> Worlds:
    return Worlds(trained(SHARED | IN_PARTS), two_ranks.call(trained, SHARED | IN_PARTS))


@pytest.mark.parametrize("world_size", [2, 4])
def test_at_each_step_of_these_runs_a_rank_lacks_a_class_that_another_holds(world_size: int) -> None:
    config = tiny_config(SHARED)
    splits = open_splits(config.data)
    for step in range(3):
        held = [
            set(load_batch(splits, config, StepContext(0, step, rank, world_size), CPU).labels.unique().tolist())
            for rank in range(world_size)
        ]
        assert any(set.union(*held) - mine for mine in held)


def reported(trained: Trained, parts: int = 1) -> dict[str, float]:
    """All but the contrastive loss, as ranks draw anchors of their own; with parts, not the mean of their ratios."""
    (report,) = trained.reports
    left_out = {"train/loss/contrast"} | ({"train/share/hard"} if parts > 1 else set())
    return {name: value for name, value in report.items() if name not in left_out}


def test_losses_shares_and_scores_are_those_of_one_process(worlds: Worlds) -> None:
    assert reported_otherwise(reported(worlds.one), reported(worlds.ranks[0])) == []


# The optimizer's momenta are the gradients of the steps.
STATE = ["student", "teacher", "prototypes", "optimizer", "bank", "adversary"]


@pytest.mark.parametrize("part", STATE)
def test_the_state_after_three_steps_is_that_of_one_process(worlds: Worlds, part: str) -> None:
    assert far_apart(worlds.one.state.get(part, {}), worlds.ranks[0].state.get(part, {}), part) == []


def test_all_ranks_hold_the_same_state_bit_by_bit(worlds: Worlds) -> None:
    assert [differences(worlds.ranks[0].state, other.state) for other in worlds.ranks[1:]] == [[]] * (
        len(worlds.ranks) - 1
    )


def test_with_parts_too_losses_shares_and_scores_are_those_of_one_process(in_parts: Worlds) -> None:
    assert reported_otherwise(reported(in_parts.one, 2), reported(in_parts.ranks[0], 2)) == []


@pytest.mark.parametrize("part", STATE)
def test_with_parts_too_the_state_is_that_of_one_process(in_parts: Worlds, part: str) -> None:
    assert far_apart(in_parts.one.state.get(part, {}), in_parts.ranks[0].state.get(part, {}), part) == []


def test_the_parts_of_these_runs_act() -> None:
    # Otherwise equality would say less than it seems to.
    mined = trained(SHARED | MORE["hard examples and class weights"]).reports[-1]
    every_pixel = trained(SHARED).reports[-1]
    assert 0.1 < mined["train/share/labelled"] < 0.9 * every_pixel["train/share/labelled"]
    assert 0 < every_pixel["train/share/hard"] < 1
    assert 0 < every_pixel["train/share/valid"] < 1
    assert trained(SHARED | MORE["image_share"]).reports[-1]["train/loss/unsupervised"] > 0
    assert trained(SHARED).state["prototypes"]["seen"].any()
    assert trained(SHARED | MORE["a bank of labelled pixels"]).reports[-1]["train/loss/bank"] > 0
