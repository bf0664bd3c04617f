"""Evaluation of a trained model image by image: one confusion matrix an image, and the scores that follow."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from trainers.config import FolderData, TrainConfig
from trainers.data.files import FileSource, require_masks
from trainers.data.folder import FolderReader, list_pairs
from trainers.data.source import ImageSource
from trainers.drafts import draft_of
from trainers.errors import DataError
from trainers.evaluate import predictions
from trainers.loader import numbered_groups
from trainers.local_run import LocalRun
from trainers.models.served import Segmenter
from trainers.scores import count_pairs, iou_scores


@dataclass(frozen=True)
class ImageEvaluation:
    """Confusion matrix of each image of a set."""

    names: tuple[str, ...]
    """Of the N images."""
    classes: tuple[str, ...]
    """Of the K classes."""
    confusion: NDArray[np.int64]
    """[N, K, K], pixels: rows truth, columns prediction; ignored pixels are not counted."""

    @property
    def total(self) -> NDArray[np.int64]:
        """[K, K], the sum over the images."""
        summed: NDArray[np.int64] = self.confusion.sum(axis=0)
        return summed

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur, in [0, 1]."""
        return iou_scores(torch.from_numpy(self.total)).miou

    @property
    def iou(self) -> NDArray[np.float64]:
        """[K], in [0, 1]; NaN for classes that occur neither in truth nor in prediction."""
        iou: NDArray[np.float64] = iou_scores(torch.from_numpy(self.total)).iou.numpy()
        return iou

    @property
    def recall(self) -> NDArray[np.float64]:
        """[K], share of a class's pixels that were found; NaN where it has none."""
        return _ratio(self.total.diagonal(), self.total.sum(axis=1))

    @property
    def precision(self) -> NDArray[np.float64]:
        """[K], share of the pixels given a class that are of it; NaN where none was given it."""
        return _ratio(self.total.diagonal(), self.total.sum(axis=0))

    @property
    def pixel_accuracy(self) -> float:
        """Share of the labelled pixels that are right, in [0, 1]; 0 where none is labelled."""
        pixels = int(self.total.sum())
        return int(self.total.trace()) / pixels if pixels else 0.0


@torch.no_grad()
def evaluate_images(
    segmenter: Segmenter, source: ImageSource, done: Callable[[int], object] | None = None
) -> ImageEvaluation:
    """Return the confusion matrix of every image, at the stored size.

    They sum to `trainers.evaluate.confusion_matrix` exactly: images go through the network in the same batches.

    Args:
        segmenter: the model.
        source: the images with their masks.
        done: called with the number of images of each batch, after it.
    """
    config, classes, count = segmenter.config, segmenter.config.num_classes, len(source)
    confusion = np.zeros((count, classes, classes), dtype=np.int64)
    run = LocalRun(device=segmenter.device)
    for indices, (inputs, truth) in numbered_groups(source, range(count), config.evaluation.batch, run):
        for index, label, mask in zip(indices, predictions(segmenter.network, inputs, config), truth, strict=True):
            confusion[index] = count_pairs(mask, label, classes).cpu().numpy()
        if done is not None:
            done(len(indices))
    return ImageEvaluation(tuple(source.names), segmenter.classes, confusion)


def folder_source(config: TrainConfig, folder: Path) -> FileSource:
    """Return the images of FOLDER/images with their masks in FOLDER/masks, as the config's own images would be read.

    Masks hold the config's classes or 255, or what a `folder` config says of values, colours and names of masks. Images
    are resized where the config stores one size.

    Raises:
        DataError: a folder is missing or empty, two images share a name, or one has no mask.
    """
    shape = config.data.image_shape
    height, width = shape or (16, 16)
    data = FolderData(root=folder, classes=config.data.classes, height=height, width=width, fit="stretch")
    if isinstance(config.data, FolderData):
        data = config.data.model_copy(update={"root": folder})
    pairs = list_pairs(data, ".")
    require_masks(pairs, "evaluated")
    return FileSource(FolderReader(data).coding._replace(shape=shape), pairs)


def save_image_evaluation(path: Path, evaluation: ImageEvaluation) -> None:
    """Write `confusion`, `names` and `classes` as a compressed .npz, whole or not at all."""
    content = io.BytesIO()
    np.savez_compressed(
        content,
        confusion=evaluation.confusion,
        names=np.array(evaluation.names, str),
        classes=np.array(evaluation.classes, str),
    )
    with draft_of(path) as draft:
        draft.write_bytes(content.getvalue())


def load_image_evaluation(path: Path) -> ImageEvaluation:
    """Return what `save_image_evaluation` wrote.

    Raises:
        DataError: the file is missing, or is something else.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names, classes = (tuple(arrays[key].tolist()) for key in ("names", "classes"))
            confusion = arrays["confusion"]
        if confusion.shape != (len(names), len(classes), len(classes)) or confusion.dtype != np.int64:
            raise ValueError(f"confusion of shape {confusion.shape} for {len(names)} images")
    except Exception as error:  # numpy and zipfile raise whatever a broken file leads them into
        reason = " ".join(str(error).split())
        message = f"{path} must hold the confusion matrices of an evaluation, got '{reason}': evaluate again"
        raise DataError(message) from error
    return ImageEvaluation(names, classes, confusion)


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    shares = np.full(len(whole), np.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares
