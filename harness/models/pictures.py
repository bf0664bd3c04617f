"""Pictures of an evaluation: the confusion matrix, masks, and images with truth and prediction laid over them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainers.assess import Assessment
    from trainers.data.source import ImageSource
    from trainers.models.served import Segmenter

NAMED, NUMBERED = 40, 21
"""Most classes whose names fit beside the matrix, and whose shares fit into it."""


def draw_confusion(found: Assessment, path: Path, title: str) -> None:
    """Write the confusion matrix as a PNG; each row is divided by the pixels that truly are of its class.

    Rows of classes that do not occur are empty.
    """
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(found.classes)
    total = found.total.astype(np.float64)
    truly = total.sum(axis=1, keepdims=True)
    shares = np.divide(total, truly, out=np.full_like(total, np.nan), where=truly > 0)
    side = max(4.5, min(14.0, 0.55 * count + 2))
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="viridis", vmin=0, vmax=1)
    axes.set(xlabel="prediction", ylabel="truth", title=title)
    if count <= NAMED:
        axes.set_xticks(range(count), found.classes, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(count), found.classes)
    if count <= NUMBERED:
        for row, column in zip(*np.nonzero(shares >= 0.005), strict=True):
            value = shares[row, column]
            colour = "black" if value > 0.6 else "white"
            axes.text(column, row, f"{value:.2f}"[1:] if value < 0.995 else "1", ha="center", va="center",
                      color=colour, fontsize=8)  # fmt: skip
    figure.colorbar(image, ax=axes, label="share of the class's pixels", shrink=0.85)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.part")
    figure.savefig(draft, dpi=110, format="png")
    draft.replace(path)


def draw_images(segmenter: Segmenter, source: ImageSource, folder: Path, count: int) -> None:
    """Write masks/NAME.png and overlays/NAME.png of the first `count` images: of the latter the left half is the truth.

    Masks hold class indices, at the size at which the images are stored.
    """
    import numpy as np
    import torch
    from PIL import Image

    from trainers.data.groups import numbered_groups
    from trainers.evaluate import predictions
    from trainers.figure import overlay
    from trainers.local_run import LocalRun
    from trainers.predict import mask_image, write_png

    config, classes = segmenter.config, len(segmenter.classes)
    run = LocalRun(device=segmenter.device)
    with torch.no_grad():
        for (index,), (images, truth) in numbered_groups(source, range(min(count, len(source))), 1, run):
            label = next(predictions(segmenter.network, images, config)).cpu().numpy().astype(np.uint8)
            image = (images[0] * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
            mask = truth[0].cpu().numpy().astype(np.uint8)
            write_png(folder / "masks" / f"{source.names[index]}.png", mask_image(label, classes))
            both = [overlay(image, one, classes) for one in (mask, label)]
            write_png(folder / "overlays" / f"{source.names[index]}.png", Image.fromarray(np.concatenate(both, axis=1)))
