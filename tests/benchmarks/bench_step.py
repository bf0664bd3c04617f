"""Split a training step into its stages, and compare what is outside the network with slow references.

    python tests/benchmarks/bench_step.py
    python tests/benchmarks/bench_step.py --json

DeepLabV3+ on a ResNet-50 at output stride 16, 129 x 129 pixels, 4 labelled + 4 unlabelled images, 21 classes, 256
queries, 512 negatives, D = 256. Times are medians of repeats in turn, after a warm-up; by default CPU time of one
thread, which other work on the machine hardly changes. With more threads they are by the clock on the wall.

    outside_network_share  of a step: all but the networks' forward and backward and the optimizer; at most 0.25
    contrast_speedup       contrastive loss, forward and backward: reference / ours; at least 30
    contrast_memory_ratio  its memory: ours / reference; at most 0.1
    images_per_s           from JPEG files to weakly augmented batches, nothing kept in memory
    prototype_bytes_per_step  what a rank hands to the others for the prototypes: 4 K (D + 1)
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).parents[1]))  # for `reference`, which is no package of the product

from measuring import Clock, Seconds, clock, interleaved, peak_memory, resident_growth
from paths import augmentation_paths, contrast_paths, pseudo_label_paths
from pipeline import measure_throughput
from sizes import FULL, QUICK, Size, train_config, write_images
from stages import NETWORK, OUTSIDE, StagedStep, take_step
from traffic import count_traffic

from trainers.config import TrainConfig
from trainers.data.splits import open_splits
from trainers.local_run import LocalRun
from trainers.state import TrainState

Figures = dict[str, Any]


def step_figures(size: Size, config: TrainConfig, now: Clock) -> Figures:
    """Stages, their shares of the step and their sum against the step as it is, its memory and messages."""
    splits = open_splits(config.data)
    training = TrainState(config, LocalRun(device=torch.device("cpu")))
    staged = StagedStep(now)
    taken: list[dict[str, float]] = []
    times = interleaved(
        {
            "whole": lambda: take_step(training, splits, config),
            "staged": lambda: taken.append(staged.take(training, splits, config)),
        },
        size.repeats,
        now,
    )
    seconds = {stage: statistics.median(one[stage] for one in taken[1:]) for stage in (*NETWORK, *OUTSIDE)}
    shares = [sum(one[stage] for stage in OUTSIDE) / sum(one.values()) for one in taken[1:]]
    traffic = count_traffic(training, splits, config)
    return {
        "outside_network_share": statistics.median(shares),
        "stages_s": seconds,
        "step_s": times["whole"].total,
        "stages_sum_over_step": times["staged"].total / times["whole"].total,
        "step_peak_bytes": peak_memory(lambda: take_step(training, splits, config)),
        "prototype_bytes_per_step": traffic.prototypes,
        "message_bytes_per_step": traffic.messages,
    }


def reference_figures(size: Size, config: TrainConfig, now: Clock) -> Figures:
    """How much faster and smaller ours are."""
    contrast = contrast_paths(size)
    slow = interleaved({name: contrast[name] for name in ("ours", "per_query")}, size.repeats, now)
    quick = interleaved({name: contrast[name] for name in ("ours", "matrix_product")}, size.quick_repeats, now)
    labels = interleaved(pseudo_label_paths(size, config), size.quick_repeats, now)
    augmentation = interleaved(augmentation_paths(size, config), size.quick_repeats, now)
    memory = {name: peak_memory(path) for name, path in contrast.items()}
    return {
        "contrast_speedup": _ratio(slow, "per_query").total,
        "contrast_speedup_in_user_time": _ratio(slow, "per_query").user,
        "contrast_speedup_over_matrix_product": _ratio(quick, "matrix_product").total,
        "contrast_s": quick["ours"].total,
        "contrast_memory_ratio": memory["ours"] / memory["per_query"],
        "contrast_bytes": memory,
        "pseudo_labels_speedup": _ratio(labels, "per_class").total,
        "augmentation_speedup": _ratio(augmentation, "per_image").total,
    }


def _ratio(times: dict[str, Seconds], reference: str) -> Seconds:
    ours, theirs = times["ours"], times[reference]
    return Seconds(theirs.total / ours.total, theirs.user / max(ours.user, 1e-9))


def resident_figures(threads: int) -> Figures:
    """Cross-check of the memory: growth of the resident memory, each loss in a process of its own."""
    grown = {}
    for name in ("ours", "per_query"):
        command = [sys.executable, __file__, "--resident", name, "--threads", str(threads)]
        grown[name] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    if None in grown.values():
        return {}
    ratio = grown["ours"] / grown["per_query"]
    return {"contrast_memory_ratio_resident": ratio, "contrast_bytes_resident": grown}


def measure(size: Size, threads: int, with_resident: bool) -> Figures:
    """All figures."""
    now = clock(threads)
    figures: Figures = {"torch": torch.__version__, "threads": threads, "load_at_start": os.getloadavg()[0]}
    if with_resident:  # first, while this process is small: a child starts as large as its parent
        figures |= resident_figures(threads)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(size, root)
        config = train_config(size, root)
        figures |= step_figures(size, config, now)
        figures |= reference_figures(size, config, now)
        throughput = measure_throughput(config, steps=8 * size.repeats)
    figures |= {"images_per_s": throughput.decoded, "images_per_s_cached": throughput.cached}
    return figures | {"load_at_end": os.getloadavg()[0]}


def print_table(figures: Figures) -> None:
    """Ratios first, which other machines can be compared with."""
    ratios = [name for name in figures if any(word in name for word in ("share", "speedup", "ratio", "over"))]
    for name in (*ratios, *(name for name in figures if name not in ratios and name != "stages_s")):
        value = figures[name]
        print(f"{name:40} {f'{value:.3f}' if isinstance(value, float) else value}")
    whole = sum(figures["stages_s"].values())
    print("\nstage                    share        ms")
    for stage, seconds in figures["stages_s"].items():
        where = "" if stage in NETWORK else "  outside the network"
        print(f"{stage:22} {seconds / whole:7.2%} {1000 * seconds:9.1f}{where}")


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, seconds: shows that it works, measures nothing"
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch; 1, the default, measures CPU time")
    parser.add_argument("--resident", choices=("ours", "per_query"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        if options.resident:
            print(json.dumps(resident_growth(contrast_paths(FULL)[options.resident])))
            return 0
        figures = measure(QUICK if options.quick else FULL, options.threads, with_resident=not options.quick)
    finally:
        torch.set_num_threads(before)
    if options.json:
        print(json.dumps(figures))
    else:
        print_table(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
