"""A discriminator of maps, what the student loses to it, and its map as an indicator (Hung et al., 2018)."""

import math
import warnings
from typing import Any

import pytest
import torch
from reference import adversary as slow
from reference.tiny import differences, tiny_config
from test_permutation import CPU, NEW_NAME, ORDER, K, varied
from test_step import all_parts
from torch import Tensor, nn

from trainers.css.adversary import adversarial_losses, as_maps
from trainers.css.pseudo_labels import upsample
from trainers.data.splits import open_splits
from trainers.errors import ConfigError
from trainers.health import discriminator_health
from trainers.loader import load_batch
from trainers.local_run import LocalRun
from trainers.loop import train
from trainers.methods import METHODS
from trainers.models.discriminator import Discriminator, Judgement
from trainers.quality import count_pseudo_labels
from trainers.state import TrainState
from trainers.step import StepOutput
from trainers.targets import Batch, StepContext, make_targets

HUNG: dict[str, Any] = {**METHODS["adversarial"], "model.norm": "group", "adversary.discriminator_width": 8}


def opinionated(network: Discriminator) -> Discriminator:
    """Let the logits of its last map spread around 0, by more in some pixels than in others."""
    with torch.no_grad():
        for layer in network.layers:
            layer.weight.mul_(3.0)  # type: ignore[operator]
    return network


def made(overrides: dict[str, Any] = HUNG) -> tuple[TrainState, Batch]:
    """A student that predicts several classes and labels for itself, and a batch with pixels without a label."""
    config = tiny_config({"data.image_size": 64, **overrides})
    state = TrainState(config, LocalRun(device=CPU))
    batch = load_batch(open_splits(config.data), config, StepContext(0, 0), CPU)
    varied(state.student, batch.images)
    state.teacher.load_state_dict(state.student.state_dict())
    assert state.adversary is not None
    opinionated(state.adversary.network)
    batch.labels[0, :9] = 255
    return state, batch


def step_of(state: TrainState, batch: Batch) -> StepOutput:
    networks = state.student, state.teacher
    return all_parts(*networks, state.prototypes, batch, state.config, StepContext(0, 10), state.judging)


def judged(state: TrainState, images: Tensor) -> tuple[Tensor, Tensor]:
    """The student's logits [N, K, H, W] and the discriminator's of them [N, H, W]."""
    assert state.adversary is not None
    with torch.no_grad():
        logits = upsample(state.student(images).logits, (64, 64))
        return logits, state.adversary.network.judge(logits.softmax(1)).squeeze(1)


def test_losses_are_those_of_the_definition() -> None:
    state, batch = made()
    batch = batch._replace(inside=None)
    assert state.adversary is not None
    assert batch.unlabelled is not None
    _, on_labelled = judged(state, batch.images)
    _, on_unlabelled = judged(state, batch.unlabelled)
    truth = state.adversary.network.judge(as_maps(batch.labels, K)).squeeze(1)
    labels = batch.labels.numpy()
    labelled, unlabelled, of_truth = (
        maps.detach().double().numpy() for maps in (on_labelled, on_unlabelled, truth)
    )  # fmt: skip
    losses = step_of(state, batch).losses
    expected = slow.adversarial(labelled, labels, unlabelled)
    assert losses["adversarial"].item() == pytest.approx(expected[0], rel=1e-5)
    assert losses["adversarial_unlabelled"].item() == pytest.approx(expected[1], rel=1e-5)
    of_discriminator = slow.discriminator(labelled, labels, unlabelled, of_truth)
    assert losses["discriminator"].item() == pytest.approx(of_discriminator, rel=1e-5)


def test_the_unsupervised_loss_is_that_of_the_students_own_classes_where_the_discriminator_takes_them_for_labels() -> (
    None
):
    state, batch = made()
    batch = batch._replace(inside=None)
    logits, opinion = judged(state, batch.unlabelled)  # type: ignore[arg-type]
    threshold = opinion.sigmoid().median().item() + 1e-6
    state.config = tiny_config({"data.image_size": 64, **HUNG, "thresholds.delta_u": threshold})
    output = step_of(state, batch)
    assert 0.3 < output.statistics["share/unsupervised"] < 0.7
    expected = slow.semi(logits.double().numpy(), opinion.double().numpy(), threshold)
    assert output.losses["unsupervised"].item() == pytest.approx(expected, rel=1e-4)  # a pixel at the edge


def test_outside_of_an_image_no_pixel_is_taken_for_a_label() -> None:
    state, batch = made()
    assert batch.inside is not None
    batch.inside[:, :20] = False
    discriminator = state.judging
    targets = make_targets(state.teacher, state.prototypes, batch, state.config, StepContext(0, 10), discriminator)  # type: ignore[arg-type]
    assert torch.equal(targets.views[0].targets.confidence > 0, batch.inside)
    assert batch.inside.any()


@pytest.mark.parametrize("indicator", ["confidence", "discriminator"])
def test_no_gradient_of_one_reaches_the_other(indicator: str) -> None:
    state, batch = made({**HUNG, "css.indicator": indicator, "loss.lambda_c": 0.1})
    assert state.adversary is not None
    losses = step_of(state, batch).losses
    theirs, own = list(state.student.parameters()), list(state.adversary.network.parameters())
    of_discriminator = torch.autograd.grad(losses["discriminator"], theirs + own, retain_graph=True, allow_unused=True)
    assert [each for each in of_discriminator[: len(theirs)] if each is not None] == []
    assert all(each is not None and each.any() for each in of_discriminator[len(theirs) :])
    of_student = torch.stack([value for name, value in losses.items() if name != "discriminator"]).sum()
    gradients = torch.autograd.grad(of_student, theirs + own, retain_graph=True, allow_unused=True)
    assert [each for each in gradients[len(theirs) :] if each is not None] == []
    for name in ("adversarial", "adversarial_unlabelled"):
        (of_logits,) = torch.autograd.grad(losses[name], [state.student.heads.segment[1].weight], retain_graph=True)
        assert of_logits.any()


def test_a_discriminator_that_says_the_same_of_everything_costs_both_log_2() -> None:
    state, batch = made()
    assert state.adversary is not None
    for parameter in state.adversary.network.parameters():
        parameter.data.zero_()
    losses = step_of(state, batch).losses
    for name in ("adversarial", "adversarial_unlabelled", "discriminator"):
        assert losses[name].item() == pytest.approx(math.log(2), rel=1e-6)


def test_where_no_pixel_has_a_label_the_losses_on_labelled_images_are_zero() -> None:
    labels, logits = torch.zeros(4, 32, 32, dtype=torch.int64), torch.randn(4, 1, 32, 32)
    labels[:2] = 255
    losses = adversarial_losses(Judgement(logits, logits, logits[:2]), labels, torch.tensor([0, 2048]))
    assert losses.labelled == 0
    expected = torch.nn.functional.softplus(logits[2:]).mean().item() / 2
    assert losses.discriminator.item() == pytest.approx(expected, rel=1e-5)


def test_it_is_five_convolutions_of_stride_2_with_leaky_relus() -> None:
    network, maps = Discriminator(K, 8), torch.rand(2, K, 67, 40)
    layers: list[nn.Module] = []
    for convolution in network.layers:
        layers += [convolution, nn.LeakyReLU(0.2)]
    assert [tuple(layer.weight.shape) for layer in network.layers] == [
        (8, K, 4, 4), (16, 8, 4, 4), (32, 16, 4, 4), (64, 32, 4, 4), (1, 64, 4, 4),
    ]  # fmt: skip
    coarse = nn.Sequential(*layers[:-1])(maps)
    assert coarse.shape == (2, 1, 2, 1)
    assert torch.equal(network.judge(maps), upsample(coarse, (67, 40)))


def test_permuting_the_classes_leaves_the_losses() -> None:
    state, batch = made()
    assert state.adversary is not None
    before = step_of(state, batch).losses
    with torch.no_grad():
        for network in (state.student, state.teacher):
            rows = network.heads.segment[1]  # type: ignore[union-attr,index]
            rows.weight.copy_(rows.weight[ORDER])
            rows.bias.copy_(rows.bias[ORDER])
        first: Any = state.adversary.network.layers[0]
        first.weight.copy_(first.weight[:, ORDER])
    after = step_of(state, batch._replace(labels=NEW_NAME[batch.labels])).losses
    assert {name: value.item() for name, value in before.items()} == pytest.approx(
        {name: value.item() for name, value in after.items()}, rel=1e-4
    )


def test_parts_add_up_to_the_whole() -> None:
    # Each part's student normalises by groups of channels.
    state, batch = made()
    whole = step_of(state, batch).losses
    state.config = tiny_config({"data.image_size": 64, **HUNG, "schedule.accumulate": 2})
    parts = step_of(state, batch).losses
    assert {name: value.item() for name, value in whole.items()} == pytest.approx(
        {name: value.item() for name, value in parts.items()}, rel=1e-5
    )


def test_pixels_are_valid_where_it_takes_the_teachers_for_labels_and_hard_where_not_the_students() -> None:
    state, batch = made(
        {**HUNG, "css.indicator": "discriminator", "loss.lambda_c": 0.1, "css.unsupervised_gate": "logit"}
    )
    batch = batch._replace(inside=None)
    _, opinion = judged(state, batch.unlabelled)  # type: ignore[arg-type]
    threshold = opinion.sigmoid().median().item()
    thresholds = {"thresholds.delta_w": threshold - 1e-3, "thresholds.delta_s": threshold}
    state.config = state.config.model_copy(
        update={"thresholds": tiny_config({**thresholds, "css.label_strategy": "logit"}).thresholds}
    )
    statistics = step_of(state, batch).statistics
    assert 0.5 < statistics["share/valid"] < 0.95  # labelled pixels are, and about half of the others
    assert 0.05 < statistics["share/hard"] < 0.95


def test_the_pixels_that_a_report_counts_as_kept_are_those_that_it_takes_for_labels() -> None:
    state, _ = made()
    assert state.adversary is not None
    source = open_splits(state.config.data).unlabelled
    run, teacher = LocalRun(device=CPU), state.teacher.eval()
    shares = []
    for threshold in (0.0, 0.5, 1.0):
        config = tiny_config({"data.image_size": 64, **HUNG, "thresholds.delta_u": threshold})
        judge = state.adversary.network
        counts = count_pseudo_labels(teacher, state.prototypes, source, config, run, False, 0.5, judge)
        shares.append(counts.kept.sum().item() / counts.predicted.sum().item())
    assert shares[0] == 1.0
    assert 0 < shares[1] < 1
    assert shares[2] == 0.0


def test_it_learns_by_adam_at_a_rate_that_falls() -> None:
    state = train(tiny_config({**HUNG, "schedule.steps": 4, "adversary.discriminator_lr": 0.01}), LocalRun(device=CPU))
    assert state.adversary is not None
    (group,) = state.adversary.optimizer.param_groups
    assert (group["betas"], group["weight_decay"]) == ((0.9, 0.99), 0.0)
    assert group["lr"] == pytest.approx(0.01 * 0.25**0.9)
    fresh = TrainState(state.config, LocalRun(device=CPU)).adversary
    assert fresh is not None
    assert differences(fresh.network.state_dict(), state.adversary.network.state_dict()) != []


def test_alone_it_tells_maps_from_labels_and_changes_nothing_of_the_student() -> None:
    # Without a weight or a reader there is none; as an indicator that no pixel depends on it, the student is the same.
    settings = {"schedule.steps": 3, "css.label_strategy": "logit", "loss.lambda_c": 0.0, "thresholds.delta_u": 0.0}
    plain = train(tiny_config(settings), LocalRun(device=CPU))
    gated = train(tiny_config({**settings, "css.unsupervised_gate": "discriminator"}), LocalRun(device=CPU))
    assert plain.adversary is None
    assert "adversary" not in plain.state_dict()
    assert gated.adversary is not None
    assert differences(plain.student.state_dict(), gated.student.state_dict()) == []


@pytest.mark.parametrize(("settings", "answer"), [
    ({"model.students": 2}, "adversary must be of one student, got model.students=2: set it to 1"),
    ({"augment.weak.crop": (28, 40)}, "adversary must have images of 32 pixels a side or more, got 28x40: set"),
], ids=str)  # fmt: skip
def test_what_it_cannot_judge_is_refused(settings: dict[str, Any], answer: str) -> None:
    with pytest.raises(ConfigError, match=answer):
        tiny_config({**HUNG, **settings})


@pytest.mark.parametrize(("loss", "passed", "answer"), [
    (0.05, 0.5, "below 0.1: it tells every map"), (0.692, 0.5, "above 0.69: it tells nothing"), (0.692, 0.2, ""),
    (0.3, 0.5, ""),
])  # fmt: skip
def test_a_discriminator_that_has_won_or_lost_draws_a_warning(loss: float, passed: float, answer: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        metrics = discriminator_health({"train/loss/discriminator": loss}, passed)
    assert metrics == {"health/discriminator_loss": loss}
    assert [answer in str(warning.message) for warning in caught] == ([True] if answer else [])
    assert discriminator_health({}, passed) == {}
