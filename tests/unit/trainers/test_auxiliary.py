"""Deep supervision: an auxiliary head, which the student has in training alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from reference import cps as slow
from reference.tiny import differences, tiny_config
from reference.vits import DPT
from test_step import DEVICE, all_parts, batch_of, some_prototypes
from torch import Tensor, nn

from trainers.config import TrainConfig
from trainers.css.pseudo_labels import upsample
from trainers.errors import ConfigError
from trainers.local_run import LocalRun
from trainers.loop import train
from trainers.methods import METHODS
from trainers.models.build import make_network
from trainers.models.heads import Dense, norm_layer
from trainers.models.pair import members
from trainers.models.served import load_segmenter
from trainers.schedules import loss_weights
from trainers.state import TrainState
from trainers.step import StepOutput
from trainers.targets import StepContext

K = 11
HEAD = {"model.auxiliary": "inner"}
BOTH = {**HEAD, "loss.auxiliary_targets": "all"}
DEEPLAB = {"model.arch": "deeplabv3plus", "model.aspp_width": 16, "model.head_width": 16}
NETWORKS: dict[str, tuple[dict[str, Any], int, tuple[int, int]]] = {
    "tiny": ({}, 24, (9, 10)),
    "ResNet": ({**DEEPLAB, "model.backbone": "resnet18"}, 256, (9, 10)),
    "ResNet of timm": ({**DEEPLAB, "model.encoder": "resnet18"}, 256, (9, 10)),
    "ResNet of timm at stride 8": ({**DEEPLAB, "model.encoder": "resnet18", "model.output_stride": 8}, 256, (9, 10)),
    "light": ({"model.arch": "light", "model.encoder": "convnext_atto", "model.head_width": 16}, 160, (9, 10)),
    "ViT": (DPT, 32, (2, 3)),
}
"""Settings, channels of the stage before the deepest one, and height and width of the logits of 33 x 38 pixels: of
stride 4, of a ViT of its patches, to which the image is resized."""


def network_of(overrides: dict[str, Any]) -> Any:
    config = tiny_config(overrides)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make_network(config.model, K, DEVICE)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_head_reads_the_stage_before_the_deepest_one_and_is_of_a_network_in_training(name: str) -> None:
    overrides, channels, size = NETWORKS[name]
    network, without = network_of({**overrides, **HEAD}), network_of(overrides)
    images = torch.rand(2, 3, 33, 38, generator=torch.Generator().manual_seed(0))
    trained = network(images)
    assert network.auxiliary[0][0].weight.shape[1] == channels
    assert trained.auxiliary.shape == (2, K, *size)
    trained.auxiliary.square().sum().backward()
    reached = [any(p.grad is not None and p.grad.any() for p in layer) for layer in network.encoder_layers()]
    assert any(reached)
    assert not any(parameter.grad is not None for parameter in network.heads.parameters())
    with torch.no_grad():
        evaluated, expected = network.eval()(images), without(images)
    assert evaluated.auxiliary is None
    # Made last: everything else starts as it does without it.
    assert differences(without.heads.state_dict(), network.heads.state_dict()) == []
    assert torch.equal(expected.logits, trained.logits)


def test_what_lies_outside_of_an_image_that_was_padded_is_cut_off() -> None:
    network = network_of({**NETWORKS["light"][0], **HEAD})
    seen: list[Tensor] = []
    network.auxiliary.register_forward_hook(lambda *call: seen.append(call[2]))
    logits = network(torch.rand(2, 3, 33, 38)).auxiliary
    # Padded to 64 x 64 pixels: four by four cells of stride 16, sixteen by sixteen of stride 4.
    assert seen[0].shape == (2, K, 4, 4)
    assert torch.equal(logits, upsample(seen[0], (16, 16))[..., :9, :10])


class Echo(nn.Module):
    """A student whose auxiliary head says what its segmentation head does."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.feature_channels = network.feature_channels

    def forward(self, *inputs: Any) -> Dense:
        dense: Dense = self.network(*inputs)
        return dense._replace(auxiliary=dense.logits)


def step_of(config: TrainConfig, echo: bool = False) -> tuple[TrainState, StepOutput]:
    state = TrainState(config, LocalRun(device=DEVICE))
    student = Echo(state.student) if echo else state.student
    batch = batch_of(config)
    batch.labels[0, :5] = 255
    return state, all_parts(student, state.teacher, some_prototypes(), batch, config, StepContext(0, 10))


@pytest.mark.parametrize("overrides", [
    {},
    {"loss.class_weights": tuple(1.0 + at for at in range(K)), "schedule.accumulate": 2},
    {"loss.unsupervised": "pixel_by_share", "schedule.accumulate": 2},
    {"loss.unsupervised": "image_share", "schedule.joint_forward": False},
    METHODS["unimatch"],
], ids=str)  # fmt: skip
def test_a_head_that_says_what_the_other_does_has_its_losses(overrides: dict[str, Any]) -> None:
    config = tiny_config({"css.label_strategy": "logit", "thresholds.delta_u": 0.1, **overrides, **BOTH})
    losses = step_of(config, echo=True)[1].losses
    own = {name for name in losses if name.startswith(("supervised", "unsupervised"))}
    assert len(own) > 1
    assert {name for name in losses if name.startswith("auxiliary")} == {
        f"auxiliary_{name}".removesuffix("_supervised") for name in own
    }
    for name in own:
        auxiliary = losses[f"auxiliary_{name}".removesuffix("_supervised")].item()
        assert auxiliary == pytest.approx(losses[name].item(), rel=1e-5), name
        assert auxiliary > 0


def test_its_loss_is_the_cross_entropy_of_all_labelled_pixels_whatever_is_mined() -> None:
    config = tiny_config({**HEAD, "model.norm": "group", "loss.supervised": "ohem", "loss.ohem_min_kept": 10})
    state, output = step_of(config)
    batch = batch_of(config)
    batch.labels[0, :5] = 255
    logits = upsample(state.student(batch.images).auxiliary, (32, 32)).detach().double()
    expected = slow.cross_entropy(logits.numpy(), batch.labels.numpy())
    assert output.losses["auxiliary"].item() == pytest.approx(expected, rel=1e-5)
    assert "auxiliary_unsupervised" not in output.losses


def test_its_losses_weigh_a_share_of_those_of_the_segmentation_head() -> None:
    config = tiny_config({**BOTH, **METHODS["unimatch_v2"], "loss.labelled_first": 0.5, "loss.auxiliary": 0.3})
    weights = loss_weights(config, 10)
    assert [weights[name] for name in ("auxiliary", "auxiliary_unsupervised")] == pytest.approx([0.3 * 0.5, 0.3 * 0.25])
    assert weights["auxiliary_unsupervised"] == weights["auxiliary_unsupervised_second"]
    assert loss_weights(config, 9)["auxiliary_unsupervised"] == 0.0
    assert tiny_config(HEAD).loss.auxiliary == 0.4  # PSPNet's


def test_without_weight_it_changes_nothing_and_with_one_it_does() -> None:
    settings = {"schedule.steps": 3}
    plain, idle, acting = (
        train(tiny_config({**settings, **more}), LocalRun(device=DEVICE)).teacher.state_dict()
        for more in ({}, {**BOTH, "loss.auxiliary": 0.0}, BOTH)
    )
    assert differences(plain, idle) == []
    assert differences(plain, acting) != []


@pytest.mark.parametrize("network", ["teacher", "student"])
@pytest.mark.parametrize("method", ["css_mix", "cps"])
def test_neither_a_teacher_nor_a_served_model_has_the_head(network: str, method: str, tmp_path: Path) -> None:
    config = tiny_config({**METHODS[method], **HEAD, "schedule.steps": 2, "evaluation.network": network})
    state = train(config, LocalRun(tmp_path, device=DEVICE))
    assert all(member.auxiliary is not None for member in members(state.student))
    assert not [name for name in state.teacher.state_dict() if "auxiliary" in name]
    served = load_segmenter(config, tmp_path / "latest.pt").network
    expected = members(state.teacher if network == "teacher" else state.student)[0].state_dict()
    assert differences(served.state_dict(), {n: v for n, v in expected.items() if "auxiliary" not in n}) == []


def test_an_encoder_without_a_stage_in_between_is_refused() -> None:
    network, config = network_of({}), tiny_config({**NETWORKS["light"][0], **HEAD}).model
    network.inner_channels = 0
    with pytest.raises(
        ConfigError, match=r"auxiliary=inner must have an encoder with a stage .* got convnext_atto: ch"
    ):
        network.add_auxiliary(config, K, norm_layer("batch", DEVICE))


def test_an_encoder_that_is_frozen_is_refused() -> None:
    with pytest.raises(ConfigError, match="auxiliary=inner must have an encoder that learns, got freeze=all: set one"):
        tiny_config({**NETWORKS["light"][0], **HEAD, "model.freeze": "all"})
