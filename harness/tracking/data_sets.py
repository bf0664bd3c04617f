"""The data sets of a config, as inputs of the parent run: what is trained on and what the objective is measured on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.tracking.notes import Notes

if TYPE_CHECKING:
    from trainers.config import TrainConfig


def record_data(notes: Notes, config: TrainConfig, *, val: bool = False) -> None:
    """Note the training images and the dev images, and the validation images where they are read.

    Raises:
        DataError: folders, lists or numbers of images do not fit.
    """
    from trainers.data.splits import open_splits, open_val

    data, splits = config.data, open_splits(config.data)
    source, schema = str(getattr(data, "root", "embedded in scikit-learn")), {"classes": list(data.classes)}
    parts = {"labelled": len(splits.labelled), "unlabelled": len(splits.unlabelled)}
    notes.dataset(f"{data.name} train", splits.digest, source, context="training", profile=parts, schema=schema)
    images = {"images": len(splits.dev)}
    notes.dataset(f"{data.name} dev", splits.digest, source, context="dev", profile=images, schema=schema)
    if val:
        images = {"images": len(open_val(data))}
        notes.dataset(f"{data.name} val", splits.digest, source, context="val", profile=images, schema=schema)
