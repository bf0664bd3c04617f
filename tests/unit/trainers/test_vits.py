"""Plain ViTs with the DPT decoder: their maps, weights, layers, and what is drawn and computed again in training."""

import logging
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from reference.tiny import differences, tiny_config
from reference.vits import DPT, NARROW, REGISTERS, with_metas_names
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from trainers.config import ModelConfig
from trainers.errors import ConfigError, DataError
from trainers.local_run import LocalRun
from trainers.models.build import build_model, make_network
from trainers.models.dpt import DptSegmenter
from trainers.models.weights import encoder_tensors, inspect_weights
from trainers.overrides import apply_overrides
from trainers.randomness import seeded
from trainers.state import TrainState

CPU, META = torch.device("cpu"), torch.device("meta")
K = 5


def config_of(encoder: str = NARROW, **changes: Any) -> ModelConfig:
    small = {"arch": "dpt", "encoder": encoder, "norm": "none", "head_width": 16, "representation_dim": 8}
    return ModelConfig.model_validate(small | changes)


def built(encoder: str = NARROW, **changes: Any) -> DptSegmenter:
    network = build_model(config_of(encoder, **changes), K, 0, CPU)
    assert isinstance(network, DptSegmenter)
    return network


@pytest.mark.parametrize("size", [(28, 42), (33, 50), (17, 98)])
@pytest.mark.parametrize("encoder", [NARROW, REGISTERS])
def test_a_vit_gives_a_cell_for_each_four_pixels_begun(encoder: str, size: tuple[int, int]) -> None:
    dense = built(encoder)(torch.rand(2, 3, *size))
    height, width = (-(-side // 4) for side in size)
    assert dense.logits.shape == (2, K, height, width)
    assert dense.representations.shape == (2, 8, height, width)


@pytest.mark.parametrize(
    "encoder", ["vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3"]
)
def test_dinov2_and_dinov3_give_a_map_after_each_quarter_of_their_blocks(encoder: str) -> None:
    with META:
        network = make_network(config_of(encoder), K, CPU)
        maps = network.encoder(torch.empty(1, 3, 64, 86))
    patch = network.encoder.patch
    assert network.encoder.taps == [2, 5, 8, 11]
    assert [tuple(each.shape) for each in maps] == [(1, 384, round(64 / patch), round(86 / patch))] * 4


@pytest.mark.parametrize(("encoder", "width", "published"), [("small", 64, (22.1, 2.7)), ("base", 128, (86.6, 10.9))])
def test_encoder_and_decoder_have_as_many_parameters_as_published(
    encoder: str, width: int, published: tuple[float, float]
) -> None:
    """In millions, of UniMatch V2's training logs on VOC."""
    with META:
        network = make_network(config_of(f"vit_{encoder}_patch14_dinov2", head_width=width), 21, CPU)
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_modules()}
    unused = 2 * (9 * width**2 + width)  # the published decoder has a residual unit that nothing reads
    decoder = sizes[""] - sizes["encoder"] - sizes["heads.represent"] + unused
    assert (round(sizes["encoder"] / 1e6, 1), round(decoder / 1e6, 1)) == published


def test_every_parameter_of_the_network_takes_part() -> None:
    network = built(REGISTERS)
    dense = network(torch.rand(2, 3, 28, 28))
    (dense.logits.square().mean() + dense.representations.square().mean()).backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("encoder", [NARROW, REGISTERS])
def test_position_embeddings_are_resized_to_the_grid_of_patches(encoder: str) -> None:
    network = built(encoder).eval()
    weights = dict(network.encoder.features.state_dict())
    prefix = 0 if encoder == REGISTERS else 1
    weights["pos_embed"] = resample_abs_pos_embed(weights["pos_embed"], [2, 3], [5, 5], prefix)
    fixed = timm.create_model(encoder, img_size=(28, 42), num_classes=0, global_pool="").eval()
    fixed.load_state_dict(weights)
    images = torch.rand(2, 3, 28, 42)
    with torch.no_grad():
        theirs = fixed.forward_intermediates(network.encoder.normalise(images), norm=True, intermediates_only=True)
        assert differences(network.encoder(images), theirs) == []


def test_images_are_resized_to_the_nearest_multiple_of_the_patch() -> None:
    encoder = built().eval().encoder
    images = torch.rand(1, 3, 33, 50)  # 2.36 and 3.57 patches
    resized = torch.nn.functional.interpolate(images, size=(28, 56), mode="bilinear", align_corners=True)
    with torch.no_grad():
        assert differences(encoder(images), encoder(resized)) == []


def random_weights(encoder: str) -> Any:
    torch.manual_seed(1)
    network = timm.create_model(encoder)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("encoder", [NARROW, REGISTERS])
def test_a_file_of_metas_names_fills_the_vit(encoder: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network, path = random_weights(encoder), tmp_path / "weights.pth"
    torch.save(with_metas_names(network), path)
    with caplog.at_level(logging.INFO, "trainers"):
        model = built(encoder, backbone_weights=path)
    assert "(100.0 % of the numbers) matched" in caplog.text
    report = inspect_weights(config_of(encoder, backbone_weights=path))
    assert report is not None
    assert (report.complete, report.unexpected) == (True, ())
    # The sum of two embeddings that a file keeps apart is rounded.
    for name, tensor in encoder_tensors(model).items():
        assert torch.allclose(tensor, network.state_dict()[name], atol=1e-6), name


def test_weights_for_other_sizes_of_images_are_resized(tmp_path: Path) -> None:
    network = timm.create_model(NARROW, img_size=28)
    torch.save(with_metas_names(network), tmp_path / "weights.pth")
    encoder = encoder_tensors(built(backbone_weights=tmp_path / "weights.pth"))
    assert torch.equal(encoder["pos_embed"], resample_abs_pos_embed(network.pos_embed, [5, 5], [2, 2], 1))


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"pos_embed": torch.zeros(3)}, ["must be of model.encoder, got", "take another file"]),
        ({"patch_embed.proj.weight": torch.zeros(2, 5)}, ["must be of model.encoder, got", "take another file"]),
        (None, ["must fill at least half of the encoder"]),
    ],
)
def test_weights_of_another_network_are_refused_in_one_line(
    change: dict[str, Tensor] | None, parts: list[str], tmp_path: Path
) -> None:
    tensors = {"conv1.weight": torch.zeros(3)} if change is None else with_metas_names(random_weights(NARROW)) | change
    torch.save(tensors, tmp_path / "weights.pth")
    with pytest.raises(DataError) as refused:
        built(backbone_weights=tmp_path / "weights.pth")
    assert [part for part in parts if part not in str(refused.value)] == []
    assert "\n" not in str(refused.value)


TINY = {"model.arch": "tiny", "model.encoder": None, "model.norm": "batch"}
REFUSED = {
    "no encoder": ({"model.encoder": None}, ["arch=dpt must have a network of timm", "vit_small_patch14_dinov2"]),
    "a crop of no whole patches": (
        {"augment.weak.crop": (28, 30)},
        ["augment.weak.crop must be multiples of the patch of model.encoder (14), got 28x30", "28x28"],
    ),
    "images of no whole patches": ({"augment.weak.crop": None}, ["augment.weak.crop must be", "got 32x32"]),
    "windows of no whole patches": (
        {"evaluation.mode": "sliding", "evaluation.window": (32, 32)},
        ["evaluation.window must be", "(14), got 32x32"],
    ),
    "a teacher that skips blocks": (
        {"model.drop_path": 0.1, "ema.teacher_norm": "train"},
        ["drop_path=0.1 must have ema.teacher_norm=eval"],
    ),
    **{
        f"{path} of another network": (TINY | change, [part])
        for path, change, part in (
            ("stochastic depth", {"model.drop_path": 0.1}, "drop_path=0.1 must have arch=dpt, got tiny"),
            ("checkpointing", {"model.checkpointing": True}, "checkpointing=True must have arch=dpt, got tiny"),
            ("no normalisation", {"model.norm": "none"}, "norm=none must have arch=dpt, got tiny"),
            ("layer-wise decay", {"optimizer.layer_decay": 0.5}, "layer_decay=0.5 must have model.arch=dpt, got tiny"),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_combined_is_refused_with_the_config(what: str) -> None:
    overrides, parts = REFUSED[what]
    with pytest.raises(ConfigError) as refused:
        apply_overrides(tiny_config(DPT), overrides)
    assert [part for part in parts if part not in str(refused.value)] == []
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("encoder", ["resnet50", "swin_tiny_patch4_window7_224", "deit_tiny_distilled_patch16_224"])
def test_what_is_no_plain_vit_is_refused_in_one_line(encoder: str) -> None:
    with META, pytest.raises(ConfigError, match=rf"^model.encoder must be a plain ViT .*got {encoder}.*arch=light$"):
        make_network(config_of(encoder), K, CPU)


def test_a_layer_learns_more_slowly_the_further_it_is_from_the_heads() -> None:
    settings = {"optimizer.layer_decay": 0.5, "optimizer.encoder_lr_factor": 0.1, "optimizer.lr": 0.8}
    state = TrainState(tiny_config(DPT | settings), LocalRun(device=CPU))
    names = {id(parameter): name for name, parameter in state.student.named_parameters()}
    rates = {
        names[id(parameter)].removeprefix("encoder.features."): group["lr"]
        for group in state.optimizer.param_groups
        for parameter in group["params"]
    }
    assert rates.keys() == {name.removeprefix("encoder.features.") for name in names.values()}
    expected = {
        "norm.weight": 0.08,
        "blocks.3.ls2.gamma": 0.04,
        "blocks.0.attn.qkv.bias": 0.005,
        "heads.segment.1.bias": 0.8,
    }
    expected |= dict.fromkeys(("pos_embed", "cls_token", "patch_embed.proj.weight"), 0.0025)
    assert {name: rates[name] for name in expected} == pytest.approx(expected)


def gradients(network: DptSegmenter, seed: int) -> dict[str, Tensor]:
    network.zero_grad()
    with seeded(seed, "drop_path", device=CPU):
        dense = network.train()(torch.rand(4, 3, 28, 28, generator=torch.Generator().manual_seed(0)))
    (dense.logits.square().mean() + dense.representations.square().mean()).backward()
    return {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}


def test_blocks_that_are_computed_again_skip_the_same_images() -> None:
    kept, again = (built(drop_path=0.5, checkpointing=value) for value in (False, True))
    assert differences(gradients(kept, 0), gradients(again, 0)) == []


def test_skipped_blocks_are_a_function_of_the_seed_and_change_no_global_generator() -> None:
    network = built(drop_path=0.5)
    before = torch.get_rng_state()
    first = gradients(network, 0)
    torch.rand(3)
    assert differences(gradients(network, 0), first) == []
    assert differences(gradients(network, 1), first) != []
    torch.set_rng_state(before)
    gradients(network, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_no_block_is_skipped_in_evaluation() -> None:
    images = torch.rand(2, 3, 28, 28)
    skipping, whole = (built(drop_path=rate).eval() for rate in (0.9, 0.0))
    with torch.no_grad():
        assert differences(skipping(images), whole(images)) == []
