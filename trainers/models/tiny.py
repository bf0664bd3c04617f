"""A stride-4 network of about 0.3 M parameters, for tests and for a laptop."""

from __future__ import annotations

from torch import Tensor, nn

from trainers.config import ModelConfig
from trainers.models.heads import Dense, Heads, Norm, Normalise, conv


class TinySegmenter(nn.Module):
    """Two strided convolutions, three dilated ones (a field of view of 67 pixels), two heads."""

    def __init__(self, config: ModelConfig, num_classes: int, norm: Norm) -> None:
        super().__init__()
        width = config.width
        self.encoder = nn.Sequential(
            Normalise(),
            conv(3, width, norm, stride=2),
            conv(width, 2 * width, norm, stride=2),
            conv(2 * width, 3 * width, norm),
            conv(3 * width, 3 * width, norm, dilation=2),
            conv(3 * width, 3 * width, norm, dilation=2),
        )
        self.heads = Heads(3 * width, 2 * width, num_classes, config, norm)

    def forward(self, images: Tensor) -> Dense:
        """Map images [N, 3, H, W] in [0, 1] to maps of height H / 4 and width W / 4."""
        dense: Dense = self.heads(self.encoder(images))
        return dense

    def encoder_parts(self) -> dict[str, nn.Module]:
        """Return the encoder."""
        return {"encoder": self.encoder}
