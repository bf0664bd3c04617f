"""`s4 export`: a file that torch or ONNX Runtime alone runs gives the masks of the model, or there is none."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from trained_runs import TrainedRuns

from harness.cli.main import run
from harness.models.find import find_run
from trainers.models import export as exporting
from trainers.models.served import Segmenter
from trainers.overrides import apply_overrides
from trainers.predict import predict_labels
from trainers.presets import load_preset

RUN_IT = """
import sys, numpy as np
form, file, images, out = sys.argv[1:]
about = {"s4.json": ""}
if form == "onnx":
    import onnxruntime
    session = onnxruntime.InferenceSession(file)
    about = session.get_modelmeta().custom_metadata_map
    (logits,) = session.run(["logits"], {"images": np.load(images)})
else:
    import torch
    if form == "torchscript":
        model = torch.jit.load(file, _extra_files=about)
    else:
        model = torch.export.load(file, extra_files=about).module()
    with torch.no_grad():
        logits = model(torch.from_numpy(np.load(images))).numpy()
np.save(out, logits)
assert not {"trainers", "harness"} & sys.modules.keys()
assert form != "onnx" or "torch" not in sys.modules
text = about["s4.json"]
print(text if isinstance(text, str) else text.decode())
"""


@pytest.mark.parametrize(("form", "suffix"), [("torch", ".pt2"), ("torchscript", ".pt"), ("onnx", ".onnx")])
def test_without_this_project_the_file_gives_the_masks_that_predict_gives(
    form: str, suffix: str, trained: TrainedRuns, tmp_path: Path
) -> None:
    assert run(["export", "first", "--format", form, "--out", f"model{suffix}", *trained.options()]) == 0
    photos = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    np.save("images.npy", (photos / np.float32(255)).astype(np.float32).transpose(0, 3, 1, 2))
    words = [sys.executable, "-W", "ignore", "-c", RUN_IT, form, f"model{suffix}", "images.npy", "logits.npy"]
    said = subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    about = json.loads(said)
    segmenter = find_run("first", trained.storage, trained.uri).load()
    assert (tuple(about["classes"]), about["size"]) == (segmenter.classes, [32, 32])
    logits = np.load("logits.npy")  # masks of a network this young are of one class
    np.testing.assert_allclose(logits, segmenter(torch.from_numpy(np.load("images.npy"))).numpy(), atol=1e-5)
    masks = [predict_labels(segmenter, Image.fromarray(photo)) for photo in photos]
    np.testing.assert_array_equal(logits.argmax(axis=1), masks)


def test_a_program_that_computes_something_else_is_not_written(
    trained: TrainedRuns, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def another(content: bytes, form: str) -> exporting.Program:
        return lambda images: torch.zeros(images.shape[0], 11, *images.shape[-2:])

    monkeypatch.setattr(exporting, "_loaded", another)
    assert run(["export", "first", "--format", "torchscript", "--out", "model.pt", *trained.options()]) == 2
    said = capsys.readouterr().err
    assert "an exported model must compute what the model does, its logits differ by" in said
    assert said.count("\n") == 1
    assert not Path("model.pt").exists()


def test_what_torch_cannot_make_a_program_of_is_refused_in_one_line(
    trained: TrainedRuns, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(self: object, images: Tensor) -> Tensor:
        raise RuntimeError("no such operator\nand a long trace")

    monkeypatch.setattr(exporting._Program, "forward", failing)
    assert run(["export", "first", "--format", "torchscript", *trained.options()]) == 2
    said = capsys.readouterr().err
    assert said.endswith(
        "--format torchscript must be able to hold this network, got no such operator: take another format\n"
    )


VIT = "voc_dinov2_s_92"
SMALL_NETWORKS = {
    "camvid_lite0": {"model.backbone_weights": "none"},
    "voc_css_92": {"model.encoder": "resnet18", "model.backbone_weights": "none"},
    VIT: {"model.backbone_weights": "none"},
}


@pytest.mark.parametrize(
    "preset", ["camvid_lite0", *(pytest.param(name, marks=pytest.mark.long) for name in ("voc_css_92", VIT))]
)
def test_every_kind_of_network_can_be_a_program_in_onnx(preset: str, tmp_path: Path) -> None:
    config = apply_overrides(load_preset(preset), SMALL_NETWORKS[preset])
    done = exporting.export(Segmenter(config), "onnx", (70, 84), tmp_path / "model.onnx")
    assert done.path.stat().st_size > 10**6
    assert done.different <= done.pixels / 1000


def test_without_the_packages_of_onnx_the_command_that_installs_them_is_said(
    trained: TrainedRuns, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(exporting, "ONNX", ("onnx", "no_such_package"))
    assert run(["export", "first", "--format", "onnx", "--out", "model.onnx", *trained.options()]) == 2
    said = capsys.readouterr().err
    assert said.endswith("the package no_such_package, it is not installed: pip install -e '.[onnx]'\n")
    assert not Path("model.onnx").exists()


@pytest.mark.parametrize("size", ["512", "8x512", "axb"])
def test_a_size_that_is_none_is_refused(size: str, trained: TrainedRuns, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "first", "--size", size, *trained.options()]) == 2
    assert f"--size must be HEIGHTxWIDTH of at least 16 pixels a side, got '{size}'" in capsys.readouterr().err
