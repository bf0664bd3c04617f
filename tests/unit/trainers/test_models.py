"""Shapes of the networks, and the weights that their encoders start from."""

import logging
import subprocess
import sys
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18, resnet34, resnet50

from trainers.config import ModelConfig, TrainConfig
from trainers.errors import ConfigError, DataError
from trainers.models import weights as weights_module
from trainers.models.build import build_model, make_network
from trainers.models.heads import norm_layer
from trainers.models.weights import WeightReport, encoder_tensors, inspect_weights, load_encoder
from trainers.overrides import apply_overrides

CPU, META = torch.device("cpu"), torch.device("meta")
K = 5


def config_of(**changes: Any) -> ModelConfig:
    small = {"arch": "deeplabv3plus", "backbone": "resnet18", "aspp_width": 16, "head_width": 16}
    return ModelConfig.model_validate({**small, "representation_dim": 8, **changes})


def shapes(config: ModelConfig, side: int) -> dict[str, tuple[int, ...]]:
    """Of what each part of the network returns, for two images of this side; nothing is computed."""
    outputs = {}
    with META:
        network = make_network(config, K, CPU)
        for name, part in network.named_children():
            part.register_forward_hook(lambda _, __, out, name=name: outputs.update({name: out}))
        network(torch.empty(2, 3, side, side))
    return {name: tuple(out.shape[1:]) for name, out in outputs.items() if isinstance(out, Tensor)} | {
        "logits": tuple(outputs["heads"].logits.shape[1:]),
        "representations": tuple(outputs["heads"].representations.shape[1:]),
    }


@pytest.mark.parametrize("side", [64, 129])
@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("stem", ["standard", "deep"])
@pytest.mark.parametrize(("backbone", "expansion"), [("resnet18", 1), ("resnet50", 4)])
def test_strides_are_those_configured_also_for_odd_sizes(
    backbone: str, expansion: int, stem: str, output_stride: int, side: int
) -> None:
    config = config_of(backbone=backbone, stem=stem, output_stride=output_stride)
    quarter, deepest = -(-side // 4), -(-side // output_stride)
    assert shapes(config, side) == {
        "stem": (128 if stem == "deep" else 64, quarter, quarter),
        "layer1": (64 * expansion, quarter, quarter),
        "layer2": (128 * expansion, -(-side // 8), -(-side // 8)),
        "layer3": (256 * expansion, deepest, deepest),
        "layer4": (512 * expansion, deepest, deepest),
        "aspp": (16, deepest, deepest),
        "low_level": (48, quarter, quarter),
        "logits": (K, quarter, quarter),
        "representations": (8, quarter, quarter),
    }


def test_a_deep_stem_is_three_small_convolutions_of_which_the_first_has_the_stride() -> None:
    network = make_network(config_of(stem="deep", backbone="resnet50"), K, CPU)
    convolutions = [
        (m.in_channels, m.out_channels, m.kernel_size, m.stride)
        for m in network.stem.modules()
        if isinstance(m, nn.Conv2d)
    ]
    assert convolutions == [(3, 64, (3, 3), (2, 2)), (64, 64, (3, 3), (1, 1)), (64, 128, (3, 3), (1, 1))]


@pytest.mark.parametrize("arch", ["tiny", "deeplabv3plus"])
def test_centred_representations_start_in_all_directions_and_nothing_else_changes(arch: str) -> None:
    default, centred = (
        build_model(config_of(arch=arch, representation_dim=64, representation_init=init), K, 0, CPU)
        for init in ("default", "centred")
    )
    different = {name for name, value in default.state_dict().items() if not value.equal(centred.state_dict()[name])}
    assert different == {"heads.represent.1.weight", "heads.represent.1.bias"}

    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    cosines = []
    for network in (default, centred):
        with torch.no_grad():
            directions = torch.nn.functional.normalize(network(images).representations, dim=1).mean(dim=(0, 2, 3))
        cosines.append(float(directions.square().sum()))  # the mean over all pairs of pixels
    print(f"{arch}: mean cosine of two pixels {cosines[0]:.3f}, centred {cosines[1]:.3f}")
    assert cosines[1] < cosines[0] / 10


def test_every_norm_of_a_deep_stem_is_the_configured_one() -> None:
    network = make_network(config_of(stem="deep", norm="group"), K, CPU)
    assert [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)] == []


def test_widths_of_pyramid_and_heads_are_those_configured() -> None:
    network = make_network(config_of(aspp_width=24, head_width=40), K, CPU)
    assert network.aspp.project[0].weight.shape == (24, 5 * 24, 1, 1)
    assert [head[0][0].weight.shape for head in network.heads.children()] == [(40, 24 + 48, 3, 3)] * 2


def test_image_level_features_are_normalised_where_the_config_says_so() -> None:
    plain, normed = (make_network(config_of(pool_norm=on), K, CPU).aspp.pooled for on in (False, True))
    assert [type(layer) for layer in plain] == [nn.AdaptiveAvgPool2d, nn.Conv2d, nn.ReLU]
    assert [type(layer) for layer in normed] == [nn.AdaptiveAvgPool2d, nn.Conv2d, nn.BatchNorm2d, nn.ReLU]


def test_normalisation_that_is_left_to_the_device_is_the_ranks_own_on_a_cpu() -> None:
    kinds = {type(module) for module in make_network(config_of(norm="auto"), K, CPU).modules()}
    assert nn.BatchNorm2d in kinds
    assert nn.SyncBatchNorm not in kinds
    assert norm_layer("auto", torch.device("cuda")) is nn.SyncBatchNorm


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A ResNet-18 of torchvision with statistics that are not those of the start."""
    torch.manual_seed(1)
    network = resnet18()
    for name, buffer in network.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand_like(buffer) + (0.5 if "var" in name else 0.0))
    return network.eval()


def saved(folder: Path, content: object) -> Path:
    path = folder / "weights.pth"
    torch.save(content, path)
    return path


def loaded(path: Path, **changes: Any) -> WeightReport:
    config = config_of(backbone_weights=path, **changes)
    return load_encoder(make_network(config, K, CPU), config)


def test_an_encoder_with_the_weights_of_torchvision_computes_what_torchvision_does(
    trained: nn.Module, tmp_path: Path
) -> None:
    config = config_of(backbone_weights=saved(tmp_path, trained.state_dict()))
    ours = build_model(config, K, 0, CPU).eval()
    images = torch.rand(2, 3, 33, 33).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        normalised, theirs = ours.stem[0](images), trained.to(memory_format=torch.channels_last)
        expected = theirs.layer1(theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(normalised)))))
        features = ours.layer1(ours.stem(images))
        # Their layer2 is ours as well: a stride of 16 dilates layer4 alone.
        assert torch.equal(features, expected)
        assert torch.equal(ours.layer3(ours.layer2(features)), theirs.layer3(theirs.layer2(expected)))


WRAPPED = {
    "bare": lambda state: state,
    "under state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "under model": lambda state: {"model": state},
    "of data parallel": lambda state: {f"module.{name}": value for name, value in state.items()},
    "of a segmentation network": lambda state: {
        "model": {f"module.backbone.{name}": value for name, value in state.items()}
    },
    "of another": lambda state: {f"encoder.{name}": value for name, value in state.items()},
    "without counters": lambda state: {n: v for n, v in state.items() if not n.endswith("num_batches_tracked")},
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", WRAPPED)
def test_a_state_dict_is_understood_in_every_form(form: str, trained: nn.Module, tmp_path: Path) -> None:
    report = loaded(saved(tmp_path, WRAPPED[form](trained.state_dict())))
    # 20 convolutions with 20 norms of 4 tensors each.
    assert (report.matched, report.total, report.share, report.missing) == (100, 100, 1.0, ())
    assert report.unexpected == ("fc.weight", "fc.bias")


def test_half_precision_weights_become_those_of_the_network(trained: nn.Module, tmp_path: Path) -> None:
    config = config_of(
        backbone_weights=saved(
            tmp_path, {n: v.half() if v.is_floating_point() else v for n, v in trained.state_dict().items()}
        )
    )
    encoder = encoder_tensors(build_model(config, K, 0, CPU))
    assert {value.dtype for value in encoder.values()} == {torch.float32}
    assert torch.equal(encoder["conv1.weight"], trained.conv1.weight.half().float())


def test_a_report_counts_what_is_missing_unexpected_and_of_another_shape(trained: nn.Module, tmp_path: Path) -> None:
    state = trained.state_dict()
    del state["layer1.0.conv1.weight"]
    state["bn1.weight"] = torch.zeros(3)
    state["extra"] = torch.zeros(1)
    path = saved(tmp_path, state)
    with pytest.warns(UserWarning, match="what did not match starts at random"):
        report = loaded(path)
    numbers = sum(v.numel() for n, v in trained.state_dict().items() if "fc" not in n and "num_batches" not in n)
    assert (report.matched, report.total) == (98, 100)
    assert report.share == pytest.approx(1 - (64 * 64 * 9 + 64) / numbers, rel=1e-12)
    assert report.missing == ("layer1.0.conv1.weight",)
    assert report.mismatched == ("bn1.weight [3] for [64]",)
    assert report.unexpected == ("fc.weight", "fc.bias", "extra")
    assert str(report).count("\n") == 0
    for part in (
        f"from {path} (sha256 ",
        "98 of 100 tensors (99.7 % of the numbers) matched",
        "1 missing (layer1.0.conv1.weight)",
        "1 of another shape (bn1.weight [3] for [64])",
        "3 not used (fc.weight, fc.bias, extra)",
    ):
        assert part in str(report)


def test_weights_of_a_standard_stem_fill_a_deep_one_from_layer1_on(tmp_path: Path) -> None:
    path = saved(tmp_path, resnet50().state_dict())
    with pytest.warns(UserWarning, match="missing"):
        report = loaded(path, backbone="resnet50", stem="deep")
    assert {name.split(".")[0] for name in report.missing} == {"conv1"}
    assert {name.split(" ")[0] for name in report.mismatched} == {
        "layer1.0.conv1.weight",
        "layer1.0.downsample.0.weight",
        *(f"bn1.{name}" for name in ("weight", "bias", "running_mean", "running_var")),
    }


def test_weights_of_a_deeper_encoder_fill_a_shallow_one_with_a_warning(tmp_path: Path) -> None:
    with META:
        state = resnet34().state_dict()
    path = saved(tmp_path, {name: torch.zeros(value.shape) for name, value in state.items()})
    with pytest.warns(UserWarning, match=r"not used \(layer1\.2\.conv1\.weight"):
        assert loaded(path).matched == 100


def test_weights_of_a_deep_stem_under_their_published_names_match_it(tmp_path: Path) -> None:
    state = make_network(config_of(stem="deep"), K, CPU)
    path = saved(tmp_path, dict(encoder_tensors(state)))
    assert {"conv1.0.weight", "conv1.1.weight", "conv1.3.weight", "conv1.4.weight", "conv1.6.weight", "bn1.weight"} <= (
        torch.load(path).keys()
    )
    assert loaded(path, stem="deep").complete


def test_building_logs_what_matched_in_one_line(
    trained: nn.Module, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "trainers"):
        build_model(config_of(backbone_weights=saved(tmp_path, trained.state_dict())), K, 0, CPU)
    assert len(caplog.messages) == 1
    assert "100 of 100 tensors (100.0 % of the numbers) matched" in caplog.text


def test_weights_can_be_inspected_without_building_the_network(trained: nn.Module, tmp_path: Path) -> None:
    config = config_of(backbone_weights=saved(tmp_path, trained.state_dict()))
    assert inspect_weights(config) == load_encoder(make_network(config, K, CPU), config)


@pytest.mark.parametrize("weights", ["none", "imagenet"])
def test_without_a_file_there_is_nothing_to_inspect(weights: str) -> None:
    assert inspect_weights(config_of(backbone_weights=weights)) is None


REFUSED = {
    "names of another kind": (
        lambda: {f"net.{name}": value for name, value in resnet18().state_dict().items()},
        ["at least half of the encoder", "set model.backbone and model.stem"],
    ),
    "nothing that matches": (lambda: {"a": torch.zeros(1)}, ["0 of 100 tensors (0.0 % of the numbers) matched"]),
    "no dictionary": (lambda: torch.zeros(1), ["tensors by name", "without any"]),
    "no tensors": (lambda: {"state_dict": {"epoch": 1}}, ["tensors by name"]),
    "code": (lambda: {"f": print, "m": nn.ReLU()}, ["a state dict of tensors", "save the state_dict() alone"]),
}


@pytest.mark.parametrize("what", REFUSED)
def test_weights_that_are_none_are_refused_in_one_line(what: str, tmp_path: Path) -> None:
    content, parts = REFUSED[what]
    path = saved(tmp_path, content())
    with pytest.raises(DataError) as refused:
        loaded(path)
    assert [part for part in (*parts, str(path)) if part not in str(refused.value)] == []
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 torn"])
def test_a_file_that_is_no_state_dict_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"^model.backbone_weights must be a state dict.*weights\.pt.*$"):
        loaded(path)


def test_a_file_that_is_missing_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^model.backbone_weights must be a file.*got .*none\.pt: No such file.*$"):
        loaded(tmp_path / "none.pt")


class Download:
    """Stands for torchvision's weights."""

    url = "https://example.org/resnet18.pth"

    def __init__(self, state: dict[str, Tensor] | None) -> None:
        self.state = state

    def get_state_dict(self, **_: object) -> dict[str, Tensor]:
        if self.state is None:
            raise urllib.error.URLError("no route to host")
        return self.state


@pytest.mark.filterwarnings("error")
def test_imagenet_weights_are_loaded_like_a_file(trained: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(weights_module.IMAGENET, "resnet18", Download(trained.state_dict()))
    encoder = encoder_tensors(build_model(config_of(backbone_weights="imagenet"), K, 0, CPU))
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in encoder.items())


def test_a_download_that_fails_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(weights_module.IMAGENET, "resnet18", Download(None))
    with pytest.raises(DataError, match=r"^model.backbone_weights=imagenet must be able to download .*no route.*$"):
        build_model(config_of(backbone_weights="imagenet"), K, 0, CPU)


@pytest.mark.parametrize(
    ("value", "kept"),
    [("none", "none"), ("imagenet", "imagenet"), ("w/a.pt", Path("w/a.pt")), (Path("a.pth"), Path("a.pth"))],
)
def test_a_word_stays_a_word_and_a_path_becomes_one(value: object, kept: object) -> None:
    config = apply_overrides(TrainConfig(), {"model.backbone_weights": value})
    again = TrainConfig.model_validate(config.model_dump(mode="json"))
    assert (config.model.backbone_weights, again.hash) == (kept, config.hash)


@pytest.mark.parametrize("value", ["imagnet", "", "weights", 3, None, True])
def test_a_word_with_a_slip_is_no_path(value: object) -> None:
    with pytest.raises(
        ConfigError,
        match=r"^model.backbone_weights: must be none, imagenet, pretrained, bundled, or a state dict in .*$",
    ):
        apply_overrides(TrainConfig(), {"model.backbone_weights": value})


def test_a_deep_stem_with_torchvisions_weights_is_refused_when_the_config_is_made() -> None:
    with pytest.raises(ConfigError, match=r"^model: backbone_weights=imagenet must have stem=standard.*$"):
        apply_overrides(TrainConfig(), {"model.backbone_weights": "imagenet", "model.stem": "deep"})


def test_the_tiny_network_imports_no_torchvision() -> None:
    code = (
        "import sys, torch; from trainers.config import ModelConfig; from trainers.models.build import build_model\n"
        "build_model(ModelConfig(), 5, 0, torch.device('cpu')); sys.exit('torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3]).returncode == 0
