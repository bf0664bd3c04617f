"""What a step of each method costs beside CSS's, in one run.

    python tests/benchmarks/bench_methods.py
    python tests/benchmarks/bench_methods.py --quick

The preset `camvid_lite0` (4 labelled + 4 unlabelled crops of 128 x 128) with random weights, on images that are drawn
here. Images are those that an encoder sees forward in a step: of the teacher, which keeps nothing for a backward pass,
and of the student, which does. CPU time of one thread, in turn, medians. Live tensors are those that a step holds at
its peak beside weights, optimizer and batch.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench_encoders import configured
from measuring import clock, interleaved, peak_memory
from sizes import FULL, write_images
from stages import take_step
from torch import Tensor

from trainers.data.splits import open_splits
from trainers.local_run import LocalRun
from trainers.methods import METHODS
from trainers.models.pair import members
from trainers.state import TrainState

NETWORK = "EfficientNet-Lite0, light"


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small crops: shows that it works, measures nothing")
    parser.add_argument("--only", default=",".join(METHODS), help="names of methods, css_mix among them; none: all")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(FULL._replace(classes=11, images=24, files=(180, 240)), root)
        configs = {method: configured(NETWORK, method, root, options.quick) for method in options.only.split(",")}
        splits = open_splits(configs["css_mix"].data)
        states = {
            method: TrainState(config, LocalRun(device=torch.device("cpu"))) for method, config in configs.items()
        }
        steps = {method: partial(take_step, state, splits, configs[method]) for method, state in states.items()}
        seconds = interleaved(steps, 1 if options.quick else 7, clock(1))
        print(f"{'method':18} teacher, images  student, images  step, ms  of css_mix  live tensors, MB")
        for method, state in states.items():
            images = images_seen(state, steps[method])
            step, live = seconds[method].total, peak_memory(steps[method]) / 1e6
            share = step / seconds["css_mix"].total
            print(
                f"{method:18} {images['teacher']:15} {images['student']:16} {1e3 * step:9.0f} {share:11.2f} "
                f"{live:17.0f}"
            )
    return 0


def images_seen(state: TrainState, step: Callable[[], object]) -> Counter[str]:
    """Return how many images the encoders of teacher and student see in a step."""
    seen: Counter[str] = Counter()

    def counted(role: str, encode: Callable[..., Any], images: Tensor, *options: Any) -> Any:
        seen[role] += len(images)
        return encode(images, *options)

    networks = [(role, network) for role in ("teacher", "student") for network in members(getattr(state, role))]
    for role, network in networks:
        network.encode = partial(counted, role, network.encode)
    step()
    for _, network in networks:
        del network.encode
    return seen


if __name__ == "__main__":
    sys.exit(main())
