"""Sources of images with label maps, and the samples that they return.

What reads no pixel, as the check of a config does, does not load torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from trainers.config import IGNORE

if TYPE_CHECKING:
    from torch import Tensor


class Samples(NamedTuple):
    """Stored images with their label maps, on the CPU, padded at the bottom and right to the largest of them."""

    images: Tensor
    """uint8 [N, 3, H, W], RGB; 0 in the padding."""
    labels: Tensor
    """uint8 [N, H, W] in 0 to K - 1, or 255 where there is no label and in the padding."""
    sizes: Tensor
    """int64 [N, 2]: height and width of each image without its padding."""

    @property
    def padded(self) -> bool:
        """Whether any image is smaller than the largest."""
        import torch

        return bool((self.sizes != torch.tensor(self.images.shape[-2:])).any())

    def pinned(self) -> Samples:
        """Return the samples in page-locked memory, from where they go to a GPU without waiting."""
        return Samples(*(part.pin_memory() for part in self))


class ImageSource(Protocol):
    """Images with their label maps, addressed by index; decoded or composed once and kept while memory allows."""

    @property
    def names(self) -> tuple[str, ...]:
        """One name an image, unique and in the order of the indices."""
        ...

    def __len__(self) -> int: ...

    def fetch(self, indices: Sequence[int]) -> Samples:
        """Return the samples of `indices`, which may repeat; may be called by several threads at once.

        Raises:
            DataError: an image or a mask that is read now is not what it should be.
        """
        ...


def uniform_samples(images: Tensor, labels: Tensor, indices: Sequence[int]) -> Samples:
    """Return rows of images uint8 [M, 3, H, W] and labels uint8 [M, H, W] that are all of one size."""
    import torch

    chosen = torch.as_tensor(indices, dtype=torch.int64)
    sizes = torch.tensor(images.shape[-2:]).expand(len(chosen), 2)
    return Samples(images.index_select(0, chosen), labels.index_select(0, chosen), sizes)


def padded_samples(pairs: Sequence[tuple[Tensor, Tensor]], least: tuple[int, int] = (0, 0)) -> Samples:
    """Return (image uint8 [3, h, w], labels uint8 [h, w]) of any sizes as one batch, `least` pixels high and wide."""
    import torch

    sizes = torch.tensor([label.shape for _, label in pairs], dtype=torch.int64).reshape(-1, 2)
    height, width = torch.cat([sizes, torch.tensor([least])]).amax(0).tolist()
    if pairs and bool((sizes == torch.tensor([height, width])).all()):
        return Samples(torch.stack([image for image, _ in pairs]), torch.stack([label for _, label in pairs]), sizes)
    images = torch.zeros(len(pairs), 3, height, width, dtype=torch.uint8)
    labels = torch.full((len(pairs), height, width), IGNORE, dtype=torch.uint8)
    for row, (image, label) in enumerate(pairs):
        images[row, :, : image.shape[-2], : image.shape[-1]] = image
        labels[row, : label.shape[-2], : label.shape[-1]] = label
    return Samples(images, labels, sizes)
