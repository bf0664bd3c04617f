"""Two students that label for each other (CPS)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from reference import cps as slow
from reference.tiny import differences, tiny_config, whole_step
from test_permutation import CPU, NEW_NAME, ORDER, K, varied

from trainers.css.pseudo_labels import upsample
from trainers.data.splits import open_splits
from trainers.errors import ConfigError
from trainers.loader import load_batch
from trainers.local_run import LocalRun
from trainers.loop import train
from trainers.methods import METHODS
from trainers.models import build, weights
from trainers.models.build import build_model
from trainers.models.pair import Pair, members
from trainers.models.served import load_segmenter
from trainers.state import TrainState
from trainers.step import StepOutput
from trainers.targets import Batch, StepContext

CPS: dict[str, Any] = {**METHODS["cps"], "model.norm": "group"}


def made(overrides: dict[str, Any] = CPS) -> tuple[TrainState, Batch]:
    """Students that predict several classes, and a batch, of which some pixels have no label and some lie outside."""
    config = tiny_config(overrides)
    state = TrainState(config, LocalRun(device=CPU))
    batch = load_batch(open_splits(config.data), config, StepContext(0, 0), CPU)
    for student, teacher in zip(members(state.student), members(state.teacher), strict=True):
        varied(student, batch.images)
        teacher.load_state_dict(student.state_dict())
    batch.labels[0, :4] = 255
    assert batch.inside is not None
    batch.inside[1, :, :6] = False
    return state, batch


def step_of(state: TrainState, batch: Batch, step: int = 10) -> StepOutput:
    return whole_step(state.student, state.teacher, state.prototypes, batch, state.config, StepContext(0, step))


def swapped(pair: torch.nn.Module) -> Pair:
    return Pair(*reversed(members(pair)))


def test_losses_are_the_sums_over_both_of_cross_entropies_with_labels_and_with_the_others_classes() -> None:
    state, batch = made()
    assert batch.unlabelled is not None
    assert batch.inside is not None
    on_labelled, on_unlabelled = (
        [upsample(network(images).logits, (32, 32)).detach().double().numpy() for network in members(state.student)]
        for images in (batch.images, batch.unlabelled)
    )
    inside = batch.inside.numpy()
    of_labels, _ = slow.losses(on_labelled, batch.labels.numpy(), on_unlabelled)
    one, other = (logits.argmax(1) for logits in on_unlabelled)
    assert 0.1 < (one != other).mean() < 1
    crossed = sum(
        slow.cross_entropy(logits, torch.where(torch.as_tensor(inside), torch.as_tensor(labels), 255).numpy())
        for logits, labels in zip(on_unlabelled, (other, one), strict=True)
    )
    losses = step_of(state, batch).losses
    assert losses["supervised"].item() == pytest.approx(of_labels, rel=1e-5)
    assert losses["unsupervised"].item() == pytest.approx(crossed, rel=1e-5)


def test_without_a_pixel_outside_the_unsupervised_loss_is_that_of_the_definition() -> None:
    state, batch = made()
    batch = batch._replace(inside=None)
    logits = [upsample(network(batch.unlabelled).logits, (32, 32)) for network in members(state.student)]
    _, expected = slow.losses([], batch.labels.numpy(), [each.detach().double().numpy() for each in logits])
    output = step_of(state, batch)
    assert output.losses["unsupervised"].item() == pytest.approx(expected, rel=1e-5)
    assert output.statistics["share/unsupervised"].item() == 1.0


@pytest.mark.parametrize("method", ["cps", "cps_cutmix"])
def test_swapping_the_students_leaves_the_losses_and_swaps_their_gradients(method: str) -> None:
    state, batch = made({**METHODS[method], "model.norm": "group"})
    gradients = []
    outputs = []
    for student, teacher in (
        (state.student, state.teacher), (swapped(state.student), swapped(state.teacher))
    ):  # fmt: skip
        student.zero_grad()
        context = StepContext(0, 10)
        output = whole_step(student, teacher, state.prototypes, batch, state.config, context)
        output.weighted({"supervised": 1.0, "unsupervised": 1.5}).backward()
        outputs.append(output)
        gradients.append([parameter.grad.clone() for parameter in members(student)[0].parameters()])  # type: ignore[union-attr]
    assert [outputs[0].losses[name] for name in outputs[0].losses] == list(outputs[1].losses.values())
    second = [parameter.grad for parameter in members(state.student)[1].parameters()]
    assert differences(gradients[1], second) == []
    assert differences(gradients[0], gradients[1]) != []


def test_both_see_the_same_mixed_images() -> None:
    state, batch = made({**METHODS["cps_cutmix"], "model.norm": "group"})
    seen: list[torch.Tensor] = []
    for student in members(state.student):
        student.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    step_of(state, batch)
    first, second = seen[1::2]
    assert torch.equal(first, second)
    assert not torch.equal(first, batch.unlabelled)  # type: ignore[arg-type]


def test_where_no_pixel_has_a_label_the_unsupervised_loss_is_zero_with_a_gradient_of_zero() -> None:
    state, batch = made()
    loss = step_of(state, batch._replace(inside=torch.zeros_like(batch.labels, dtype=torch.bool))).losses
    loss["unsupervised"].backward()
    assert loss["unsupervised"].item() == 0.0
    assert not any(parameter.grad.any() for parameter in state.student.parameters() if parameter.grad is not None)


def test_without_an_unsupervised_loss_the_first_trains_as_it_does_alone() -> None:
    supervised = {**METHODS["supervised"], "schedule.steps": 4, "css.label_strategy": "logit"}
    alone = train(tiny_config(supervised), LocalRun(device=CPU))
    both = train(tiny_config({**supervised, "model.students": 2}), LocalRun(device=CPU))
    first, second = (member.state_dict() for member in members(both.student))
    assert differences(first, alone.student.state_dict()) == []
    assert differences(first, second) != []


def test_permuting_the_classes_leaves_the_losses() -> None:
    state, batch = made({**METHODS["cps_cutmix"], "model.norm": "group"})
    before = step_of(state, batch).losses
    with torch.no_grad():
        for network in (*members(state.student), *members(state.teacher)):
            rows = network.heads.segment[1]
            rows.weight.copy_(rows.weight[ORDER])
            rows.bias.copy_(rows.bias[ORDER])
    after = step_of(state, batch._replace(labels=NEW_NAME[batch.labels])).losses
    assert {name: value.item() for name, value in before.items()} == pytest.approx(
        {name: value.item() for name, value in after.items()}, rel=1e-5
    )
    assert NEW_NAME[ORDER].tolist() == list(range(K))


def test_the_first_is_scored_and_served(tmp_path: Path) -> None:
    config = tiny_config({**CPS, "schedule.steps": 2})
    state = train(config, LocalRun(tmp_path, device=CPU))
    first, second = members(state.student)
    served, images = load_segmenter(config, tmp_path / "latest.pt").network, torch.rand(2, 3, 32, 32)
    assert differences(served.state_dict(), first.state_dict()) == []
    outputs = [network.eval()(images).logits for network in (state.scored, first, second)]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_the_published_weights_of_an_encoder_go_into_both(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Any] = []
    monkeypatch.setattr(weights, "load_encoder", lambda network, _: loaded.append(network))
    light = {"model.arch": "light", "model.encoder": "mobilenetv3_small_050", "model.backbone_weights": "pretrained"}
    config = tiny_config({**METHODS["cps"], **light, "model.head_width": 16})
    assert loaded == list(members(build_model(config.model, K, 0, CPU)))
    assert build.members(loaded[0]) == (loaded[0],)


@pytest.mark.parametrize(
    "settings", [{"loss.lambda_c": 0.1}, {"css.label_strategy": "mix"}, {"bank.weight": 0.1}], ids=str
)
def test_what_would_need_prototypes_or_a_bank_of_each_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"model.students=2 must have css.label_strategy=logit, loss.lambda_c=0 and"):
        tiny_config({**CPS, **settings})
