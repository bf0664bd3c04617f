"""Command `python -m trainers PRESET`: training without Ray, tracking or search; under torchrun, on several ranks.

python -m trainers digits_css --set schedule.steps=200 --out runs/try
torchrun --nproc-per-node 2 -m trainers digits_css
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainers.config import TrainConfig
from trainers.errors import DivergedError, UsageError
from trainers.methods import METHOD, METHODS, configured
from trainers.overrides import parse_settings
from trainers.presets import PRESETS, load_preset


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 done, 1 failed, 2 wrong use."""
    parser = argparse.ArgumentParser(prog="python -m trainers", description="Train semi-supervised segmentation.")
    parser.add_argument("preset", nargs="?", default="digits_css", help=f"one of {', '.join(PRESETS)}")
    parser.add_argument("--method", help=f"train the preset as one of {', '.join(METHODS)}")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="PATH=VALUE")
    parser.add_argument(
        "--out", type=Path, help="folder for latest.pt (resumed from where it exists), splits, predictions.png"
    )
    options = parser.parse_args(arguments)
    try:
        settings = {METHOD: options.method, **parse_settings(options.settings)}
        return _train(configured(load_preset(options.preset), settings), options.out)
    except UsageError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


def _train(config: TrainConfig, out: Path | None) -> int:
    # Imported here, so that a wrong option is answered before torch is loaded.
    from trainers.data.needs import verify_needs
    from trainers.data.splits import open_splits, write_splits
    from trainers.figure import draw_predictions, draw_representations
    from trainers.local_run import LocalRun, process_group
    from trainers.loop import train

    verify_needs(config)
    with process_group():
        run = LocalRun(folder=out, listener=_print)
        if out is not None and run.rank == 0:
            write_splits(open_splits(config.data), out / "splits")
        try:
            state = train(config, run)
        except DivergedError as error:
            sys.stderr.write(f"failed: {error}\n")
            return 1
        if out is not None and run.rank == 0:
            draw_predictions(state, open_splits(config.data).dev, config, out / "predictions.png")
            if state.snapshots:
                draw_representations(state.snapshots, config.data.classes, out / "representations.png")
    return 0


def _print(metrics: Mapping[str, float]) -> None:
    losses = "  ".join(
        f"{name.rsplit('/', 1)[-1]} {value:.3f}" for name, value in metrics.items() if name.startswith("train/loss/")
    )
    sys.stdout.write(f"step {metrics['step']:6.0f}  dev/miou {metrics['dev/miou']:.4f}  {losses}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
