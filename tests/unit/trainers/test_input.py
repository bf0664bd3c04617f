"""What the network sees of an image: colour spaces, maps that are added, and weights that were made for RGB."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import colour as slow
from reference.tiny import differences, tiny_config
from reference.vits import NARROW
from torch import Tensor, nn

from trainers.colour import ADDED, CHANNELS, CURVED, LINEAR, channels_of, names_of
from trainers.config import ModelConfig
from trainers.config.base import hashed
from trainers.config.model import INVERTIBLE, InputConfig
from trainers.cost import step_cost
from trainers.errors import ConfigError
from trainers.local_run import LocalRun
from trainers.loop import train
from trainers.models.build import build_model, make_network
from trainers.models.export import export
from trainers.models.heads import IMAGENET_MEAN, IMAGENET_STD, Normalise
from trainers.models.network import Network
from trainers.models.served import Segmenter, load_segmenter
from trainers.models.weights import encoder_tensors, inspect_weights
from trainers.run import Decision

CPU, META = torch.device("cpu"), torch.device("meta")
SPACES, MAPS = [*LINEAR, *CURVED], [*ADDED]
EVERYTHING = {"model.input.space": "lab", "model.input.add": MAPS}
ENCODERS: dict[str, dict[str, Any]] = {
    "resnet": {"arch": "deeplabv3plus", "backbone": "resnet18"},
    "deep stem": {"arch": "deeplabv3plus", "backbone": "resnet18", "stem": "deep"},
    "timm": {"arch": "light", "encoder": "mobilenetv3_small_050"},
    "of its own mean": {"arch": "light", "encoder": "tf_efficientnet_lite0"},
    "on timm": {"arch": "deeplabv3plus", "encoder": "convnext_atto"},
    "vit": {"arch": "dpt", "encoder": NARROW},
}


def photo(height: int = 7, width: int = 9) -> Tensor:
    """An image in which black, white, a grey, the primaries and colours of two equal parts occur, [1, 3, H, W]."""
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    special = [(0, 0, 0), (1, 1, 1), (0.5, 0.5, 0.5), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0.02, 0.01, 0.02)]
    image[0, :, 3, : len(special)] = torch.tensor(special).T
    return image


def config_of(encoder: str = "resnet", space: str = "rgb", add: list[str] | None = None, **changes: Any) -> ModelConfig:
    small = {"aspp_width": 16, "head_width": 16, "representation_dim": 8, "input": {"space": space, "add": add or []}}
    return ModelConfig.model_validate({**small, **ENCODERS.get(encoder, {}), **changes})


def first_convolution(network: nn.Module) -> nn.Conv2d:
    return next(module for module in network.modules() if isinstance(module, nn.Conv2d))


@pytest.mark.parametrize("name", [*SPACES, *MAPS])
def test_channels_are_those_of_the_formula(name: str) -> None:
    image = photo()
    made = channels_of(image, name)[0] if name in SPACES else channels_of(image, "rgb", [name])[0, 3:]
    expected = slow.channels(image[0].double().numpy(), name)
    assert len(made) == len(CHANNELS[name])
    # Of standard deviations near 0 the rounding of a difference of squares is left.
    np.testing.assert_allclose(made.numpy(), expected, rtol=1e-4, atol=1e-3 if name == "lab" else 3e-5)


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((1, 1, 1), (100.0, 0.0, 0.0)), ((0, 0, 0), (0.0, 0.0, 0.0)), ((1, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 1, 0), (87.73, -86.18, 83.18)), ((0, 0, 1), (32.30, 79.19, -107.86)),
    ],
)  # fmt: skip
def test_primaries_have_their_known_places_in_cielab(colour: tuple[int, ...], expected: tuple[float, ...]) -> None:
    made = channels_of(torch.tensor(colour).float().view(1, 3, 1, 1), "lab").flatten().tolist()
    assert made == pytest.approx(expected, abs=0.03)


def test_a_grey_has_no_colour_in_any_space() -> None:
    greys = torch.linspace(0, 1, 9).expand(1, 3, 1, 9)
    colours = {"yiq": [1, 2], "lab": [1, 2], "opponent": [0, 1], "hsv": [0, 1]}
    assert all(channels_of(greys, space)[:, rows].abs().amax() < 1e-4 for space, rows in colours.items())
    torch.testing.assert_close(channels_of(greys, "normalised_rgb"), torch.full((1, 3, 1, 9), 1 / 3))


@pytest.mark.parametrize("space", SPACES)
def test_an_image_has_the_channels_that_it_has_alone_and_those_of_its_mirror_mirrored(space: str) -> None:
    images, maps = torch.cat([photo(), 1 - photo()]), [name for name in MAPS if name != "position"]
    made = channels_of(images, space, maps)
    assert torch.equal(made[1:], channels_of(images[1:], space, maps))
    # Sums in another order: of standard deviations near 0 the rounding of a difference of squares is left.
    torch.testing.assert_close(made.flip(-1), channels_of(images.flip(-1), space, maps), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("space", SPACES)
def test_channels_of_colours_as_photos_have_them_are_standardised(space: str) -> None:
    axes = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    draws = np.random.default_rng(0).normal(size=(3, 100, 100)) * np.sqrt([0.2175, 0.0188, 0.0045])[:, None, None]
    colours = np.einsum("cd,dhw->chw", axes, draws) + np.array(IMAGENET_MEAN)[:, None, None]
    images = torch.from_numpy(colours.clip(0, 1)).float()[None]
    made = Normalise(InputConfig.model_validate({"space": space, "add": ["position", "lightness"]}))(images)
    mean, std = made.mean((0, 2, 3)), made.std((0, 2, 3))
    assert mean.abs().max() < 0.1
    assert (std > 0.85).all()
    assert (std < 1.25).all()


def test_rgb_alone_is_centred_as_it_always_was_and_no_part_of_the_hash() -> None:
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_STD))
    assert torch.equal(Normalise(InputConfig())(photo()), (photo() - mean) / std)
    assert "input" not in hashed(ModelConfig())
    assert hashed(ModelConfig(input=InputConfig(space="yiq")))["input"]["space"] == "yiq"


@pytest.mark.parametrize("encoder", ["tiny", *ENCODERS])
@pytest.mark.parametrize(("space", "add"), [("grey", []), ("hsv", []), ("lab", MAPS)])
def test_the_first_convolution_of_every_network_takes_the_channels(encoder: str, space: str, add: list[str]) -> None:
    with META:
        network = make_network(config_of(encoder, space, add), 5, CPU)
        logits = network(torch.empty(2, 3, 32, 36)).logits
    assert first_convolution(network).in_channels == len(names_of(space, add))
    assert logits.shape == (2, 5, 8, 9)


def scrambled(encoder: str, folder: Path) -> tuple[Network, Path]:
    """A network for RGB with statistics that are not those of the start, and its encoder's weights in a file."""
    network = build_model(config_of(encoder), 5, 0, CPU).eval()
    assert isinstance(network, Network)
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(0.5 + torch.rand(buffer.shape))
    torch.save({name: tensor.detach() for name, tensor in encoder_tensors(network).items()}, folder / "weights.pth")
    return network, folder / "weights.pth"


@pytest.mark.parametrize("encoder", [name for name in ENCODERS if name != "on timm"])
def test_with_weights_made_for_rgb_the_network_starts_as_the_same_function(encoder: str, tmp_path: Path) -> None:
    network, path = scrambled(encoder, tmp_path)
    images = torch.rand(2, 3, 32, 36)
    with torch.no_grad():
        expected = network.encode(images).maps
        for space, add in (("yiq", []), ("opponent", ["gradient", "position"])):
            config = config_of(encoder, space, add, backbone_weights=path)
            report = inspect_weights(config)
            assert report is not None
            assert report.complete
            changed = build_model(config, 5, 0, CPU).eval()
            assert isinstance(changed, Network)
            assert first_convolution(changed).in_channels == len(names_of(space, add))
            for made, of_rgb in zip(changed.encode(images).maps, expected, strict=True):
                torch.testing.assert_close(made, of_rgb, atol=1e-5 * float(of_rgb.abs().max()), rtol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model.input.space": "lab"}, "input.space must be rgb, yiq, opponent with backbone_weights=imagenet, which"),
        ({"model.input.space": "grey"}, "of RGB images, got grey: set one of them, or backbone_weights=none"),
        ({"model.input.add": ["gradient"], "model.freeze": "all"}, "input.add must be empty with freeze=all, which"),
        ({"model.input.add": ["gradient", "gradient"]}, "add must name a map once, got gradient, gradient: remove one"),
        ({"model.input.add": ["edges"]}, "model.input.add.0: Input should be 'gradient', 'local_std', 'position' or"),
        ({"model.input.space": "rgbd"}, "model.input.space: Input should be 'rgb', 'yiq', 'lab', 'hsv', 'opponent',"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(overrides: dict[str, Any], message: str) -> None:
    pretrained = {"model.arch": "deeplabv3plus", "model.backbone_weights": "imagenet"}
    with pytest.raises(ConfigError) as refusal:
        tiny_config({**pretrained, **overrides})
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("space", CURVED)
def test_a_step_reads_nothing_back_from_the_device(space: str) -> None:
    """Fake tensors have no values: a step that asked for one would fail."""
    config = tiny_config({"model.input.space": space, "model.input.add": MAPS})
    assert step_cost(config).parameters.encoder > step_cost(tiny_config()).parameters.encoder


def test_a_training_goes_on_bit_by_bit_and_its_checkpoint_serves(tmp_path: Path) -> None:
    config = tiny_config({**EVERYTHING, "schedule.steps": 4, "schedule.evaluate_every": 2})
    whole = train(config, LocalRun()).state_dict()
    train(config, LocalRun(tmp_path, listener=lambda at: Decision.STOP if at["step"] == 2 else Decision.CONTINUE))
    resumed = train(config, LocalRun(tmp_path)).state_dict()
    assert differences(resumed, whole) == []
    served = load_segmenter(config, tmp_path / "latest.pt")
    assert differences(dict(served.network.state_dict()), dict(whole["teacher"])) == []
    assert first_convolution(served).in_channels == 8


@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_an_exported_file_takes_rgb(form: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    exported = export(Segmenter(tiny_config(EVERYTHING)), form, (32, 36), tmp_path / "model")
    assert exported.error < 1e-4


@pytest.mark.parametrize("space", INVERTIBLE)
def test_a_kernel_of_rgb_becomes_one_of_the_channels(space: str) -> None:
    mean, std = (0.3, 0.4, 0.5), (0.5, 0.4, 0.3)
    kernel, images = torch.rand(2, 3, 3, 3), torch.rand(1, 3, 8, 8)
    rgb = Normalise(InputConfig(), mean, std)
    other = Normalise(InputConfig.model_validate({"space": space, "add": ["lightness"]}), mean, std)
    made = nn.functional.conv2d(other(images), other.of_channels(kernel), padding=1)
    torch.testing.assert_close(made, nn.functional.conv2d(rgb(images), kernel, padding=1), atol=1e-5, rtol=1e-5)
