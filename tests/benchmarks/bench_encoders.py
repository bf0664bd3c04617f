"""Steps a second and memory of the networks that a CPU can train, at the same size and in one run.

    python tests/benchmarks/bench_encoders.py
    python tests/benchmarks/bench_encoders.py --quick

The preset `camvid_lite0` (4 labelled + 4 unlabelled crops of 128 x 128), its network exchanged for the tiny one and for
DeepLabV3+ on a ResNet-18, with random weights, on images that are drawn here. CPU time of one thread, in turn, medians.
Live tensors are those that a step holds at its peak beside weights, optimizer and batch.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
from measuring import clock, interleaved, peak_memory
from sizes import FULL, write_images
from stages import take_step

from trainers.config import TrainConfig
from trainers.data.splits import Splits, open_splits
from trainers.local_run import LocalRun
from trainers.methods import METHODS
from trainers.overrides import apply_overrides
from trainers.presets import load_preset
from trainers.state import TrainState

NETWORKS = {
    "EfficientNet-Lite0, light": {"model.backbone_weights": "none"},
    "tiny, width 24": {"model.arch": "tiny", "model.width": 24, "model.encoder": None},
    "ResNet-18, DeepLabV3+": {
        "model.arch": "deeplabv3plus", "model.backbone": "resnet18", "model.encoder": None, "model.head_width": 256,
    },
}  # fmt: skip
SMALL = {"augment.weak.crop": (64, 64), "loss.queries": 16, "loss.negatives": 16}


def configured(network: str, method: str, root: Path, quick: bool) -> TrainConfig:
    """Return the preset with a network and a method, on the images in a folder."""
    names = tuple(f"class {index}" for index in range(11))
    data = {"data.root": str(root), "data.labelled": 8, "data.dev": 4, "data.classes": names}
    common = {"model.backbone_weights": "none", **data, **(SMALL if quick else {})}
    return apply_overrides(load_preset("camvid_lite0"), common | METHODS[method] | NETWORKS[network])


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small crops: shows that it works, measures nothing")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(FULL._replace(classes=11, images=24, files=(180, 240)), root)
        for method in ("css_mix", "supervised"):
            show(method, root, options.quick)
    return 0


def show(method: str, root: Path, quick: bool) -> None:
    """Measure the steps of a method and an evaluation, and print a table."""
    configs = {network: configured(network, method, root, quick) for network in NETWORKS}
    splits = open_splits(next(iter(configs.values())).data)
    states = {network: TrainState(config, LocalRun(device=torch.device("cpu"))) for network, config in configs.items()}
    steps = {network: partial(take_step, state, splits, configs[network]) for network, state in states.items()}
    repeats = 1 if quick else 5
    seconds = interleaved(steps, repeats, clock(1))
    looks = {network: partial(evaluate, state, splits) for network, state in states.items()}
    seen = interleaved(looks, repeats, clock(1))
    print(f"\n{method:26} parameters, M  step, ms  steps/s  evaluation, ms an image  live tensors, MB")
    for network, state in states.items():
        weights = sum(weight.numel() for weight in state.student.parameters()) / 1e6
        step, look = seconds[network].total, 1e3 * seen[network].total / len(splits.dev)
        live = peak_memory(steps[network]) / 1e6
        print(f"{network:26} {weights:13.2f} {1e3 * step:9.0f} {1 / step:8.2f} {look:24.0f} {live:17.0f}")


def evaluate(state: TrainState, splits: Splits) -> None:
    """Let the teacher see the dev images."""
    images = splits.dev.fetch(range(len(splits.dev))).images.float() / 255
    with torch.no_grad():
        state.teacher.eval()(images)


if __name__ == "__main__":
    sys.exit(main())
