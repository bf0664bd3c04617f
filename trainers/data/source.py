"""What a training step reads images from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class ImageSource(Protocol):
    """Images of one size with their label maps, addressed by index; decoded or composed once and kept in memory."""

    @property
    def names(self) -> tuple[str, ...]:
        """One name an image, unique and in the order of the indices."""
        ...

    def __len__(self) -> int: ...

    def fetch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return images and labels of `indices`, which may repeat, on the CPU.

        Returns:
            Images uint8 [N, 3, H, W], RGB, and labels uint8 [N, H, W] in 0 to K - 1, or 255 where there is none.

        Raises:
            DataError: an image or a mask that is read for the first time is not what it should be.
        """
        ...
