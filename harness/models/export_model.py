"""Export of a trained model, from its name to a file that needs nothing of this project."""

from __future__ import annotations

import re
from pathlib import Path

from harness.console import Console
from harness.models.find import find_run
from harness.run_folder import check_writable
from harness.tracking.stores import absolute_uri
from trainers.config.base import SMALLEST_VIEW
from trainers.errors import UsageError
from trainers.models.export import SUFFIXES, Exported, Format, export, view_size


def export_model(
    run: str,
    form: Format,
    out: Path | None,
    size: str | None,
    storage: Path,
    tracking_uri: str | None,
    console: Console,
) -> Exported:
    """Write a model as a program of torch or ONNX, after a copy of it has computed what the model computes.

    Args:
        run: as `harness.models.find.find_run` takes it.
        out: the file; none: `model` beside the evaluations of the run.
        size: HEIGHTxWIDTH of the images; none: what the network sees in an evaluation, or else in training.

    Raises:
        UsageError: no such model, a size or a file that cannot be, no packages for it, or torch cannot make it.
    """
    shape = None if size is None else _read_size(size)
    model = find_run(run, storage, absolute_uri(tracking_uri))
    path = (out or model.out / f"model{SUFFIXES[form]}").absolute()
    if path.is_dir():
        raise UsageError(f"--out must be a file, got the folder {path}: name a file in it")
    check_writable(path.parent, "--out")
    segmenter = model.load()
    done = export(segmenter, form, shape or view_size(model.config), path)
    height, width = done.size
    console.say(
        f"{model.title} at step {segmenter.step}: {path}, of images [N, 3, {height}, {width}] in [0, 1] to logits "
        f"[N, {len(segmenter.classes)}, {height}, {width}], float32"
    )
    console.say(
        f"checked on random images: {done.different} of {done.pixels} pixels have another class, logits differ by "
        f"{done.error:.2g} at most"
    )
    console.result(
        {"run": model.title, "file": str(path), "format": form, "size": [height, width]}
        | {"classes": list(segmenter.classes), "different": done.different, "pixels": done.pixels, "error": done.error}
    )
    return done


def _read_size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if found is None or min(size := (int(found[1]), int(found[2]))) < SMALLEST_VIEW:
        raise UsageError(
            f"--size must be HEIGHTxWIDTH of at least {SMALLEST_VIEW} pixels a side, got {text!r}: give it, for "
            "example as 512x512"
        )
    return size
