"""Channels of an image: colour spaces, and maps that are added to them.

Sums of products are written out, as in `augment.photometric`: as matrix products or convolutions they would be rounded
under TF32 or autocast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Matrix = Sequence[Sequence[float]]

# RGB to luminance Y and chrominance I, Q (NTSC). The rows of I and Q sum to 0, so Y (1, 1, 1) is the grey of a colour
# and the rest of the colour is its chrominance.
YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
_TWO, _THREE, _SIX = (1 / math.sqrt(number) for number in (2, 3, 6))
LINEAR: dict[str, Matrix] = {
    "rgb": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "yiq": YIQ,
    "opponent": ((_TWO, -_TWO, 0.0), (_SIX, _SIX, -2 * _SIX), (_THREE, _THREE, _THREE)),
    "grey": YIQ[:1],
}
"""Rows are channels. `opponent`: van de Sande, Gevers and Snoek, PAMI 2010, an orthonormal matrix."""

# Linear sRGB to CIE XYZ with the white D65, IEC 61966-2-1. The white is the sum of each row: greys have no colour.
_XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
_KNEE = 6 / 29
_WINDOW = 5
"""Pixels a side of `local_std`'s neighbourhood."""

RGB = ("red", "green", "blue")
CHANNELS: dict[str, tuple[str, ...]] = {
    "rgb": RGB,
    "yiq": ("Y", "I", "Q"),
    "lab": ("L*", "a*", "b*"),
    "hsv": ("hue", "saturation", "value"),
    "opponent": ("O1", "O2", "O3"),
    "grey": ("Y",),
    "normalised_rgb": ("r", "g", "b"),
    "gradient": ("gradient",),
    "local_std": ("local std",),
    "position": ("row", "column"),
    "lightness": ("L*",),
}
"""Names of the channels of each space and of each map that may be added; one name, one channel."""

STATISTICS: dict[str, tuple[float, float]] = {
    "Y": (0.462, 0.271), "I": (0.029, 0.092), "Q": (-0.009, 0.044),
    "O1": (0.021, 0.091), "O2": (0.053, 0.123), "O3": (0.778, 0.466),
    "L*": (49.0, 25.6), "a*": (2.2, 12.8), "b*": (7.6, 17.5),
    "hue": (0.345, 0.3), "saturation": (0.387, 0.277), "value": (0.54, 0.257),
    "r": (0.375, 0.147), "g": (0.333, 0.096), "b": (0.292, 0.13),
    "gradient": (0.036, 0.053), "local std": (0.047, 0.055), "row": (0.0, 0.577), "column": (0.0, 0.577),
}  # fmt: skip
"""Mean and standard deviation of each channel but those of rgb.

Of colours with ImageNet's mean and covariance (Krizhevsky et al., NIPS 2012), normal and cut to [0, 1]; gradient and
local std are those of CamVid's training images at 240 x 180.
"""


def linear(images: Tensor, matrix: Matrix) -> Tensor:
    """Map [N, 3, H, W] to the channels that are the rows of a matrix, [N, C, H, W]."""
    red, green, blue = images.unbind(1)
    return torch.stack([row[0] * red + row[1] * green + row[2] * blue for row in matrix], 1)


def lab(images: Tensor) -> Tensor:
    """Map sRGB to CIELAB of the white D65: L* in [0, 100], a* and b* within some +-110."""
    light = torch.where(images <= 0.04045, images / 12.92, ((images + 0.055) / 1.055) ** 2.4)
    share = linear(light, [[part / sum(row) for part in row] for row in _XYZ])
    x, y, z = torch.where(share > _KNEE**3, share ** (1 / 3), share / (3 * _KNEE**2) + 4 / 29).unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def hsv(images: Tensor) -> Tensor:
    """Map RGB to hue, saturation and value, each in [0, 1]; the hue of a grey is 0, and it jumps at red."""
    red, green, blue = images.unbind(1)
    value, least = images.amax(1), images.amin(1)
    chroma = value - least
    divisor = torch.where(chroma > 0, chroma, 1.0)
    of_red = (green - blue) / divisor
    hue = torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4)
    hue = torch.where(value == red, torch.where(of_red < 0, of_red + 6, of_red), hue)
    return torch.stack([hue / 6, chroma / torch.where(value > 0, value, 1.0), value], 1)


def normalised_rgb(images: Tensor) -> Tensor:
    """Map RGB to the share of each colour in their sum; that of black is 1/3."""
    total = images.sum(1, keepdim=True)
    return torch.where(total > 0, images / torch.where(total > 0, total, 1.0), 1 / 3)


def lightness(images: Tensor) -> Tensor:
    """Map sRGB to CIELAB's L*, [N, 1, H, W] in [0, 100]."""
    return lab(images)[:, :1]


def gradient(images: Tensor) -> Tensor:
    """Map RGB to the length of the luminance's gradient by central differences, a pixel; edges are repeated."""
    padded = F.pad(linear(images, LINEAR["grey"]), (1, 1, 1, 1), mode="replicate")
    along = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    down = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    return (along.square() + down.square()).sqrt() / 2


def local_std(images: Tensor) -> Tensor:
    """Map RGB to the standard deviation of the luminance in the 5 x 5 pixels around; edges are repeated."""
    around = F.pad(linear(images, LINEAR["grey"]), (_WINDOW // 2,) * 4, mode="replicate")
    mean, square = (F.avg_pool2d(each, _WINDOW, stride=1) for each in (around, around.square()))
    return (square - mean.square()).clamp(min=0).sqrt()


def position(images: Tensor) -> Tensor:
    """Return row and column of each pixel of a view (an image, crop or window) from -1 to 1, [N, 2, H, W]."""
    height, width = images.shape[-2:]
    rows, columns = (torch.linspace(-1, 1, side, device=images.device) for side in (height, width))
    rows, columns = rows[:, None].expand(height, width), columns.expand(height, width)
    return torch.stack([rows, columns]).expand(images.shape[0], 2, height, width)


CURVED: dict[str, Callable[[Tensor], Tensor]] = {"lab": lab, "hsv": hsv, "normalised_rgb": normalised_rgb}
ADDED: dict[str, Callable[[Tensor], Tensor]] = {
    "gradient": gradient, "local_std": local_std, "position": position, "lightness": lightness,
}  # fmt: skip


def channels_of(images: Tensor, space: str, add: Sequence[str] = ()) -> Tensor:
    """Return the channels of a space and of the maps that are added, [N, C, H, W] in the order of `CHANNELS`.

    Args:
        images: sRGB, float32 [N, 3, H, W] in [0, 1].
        space: A key of `LINEAR` or `CURVED`.
        add: Keys of `ADDED`.
    """
    coloured = images
    if space != "rgb":
        coloured = CURVED[space](images) if space in CURVED else linear(images, LINEAR[space])
    return torch.cat([coloured, *(ADDED[name](images) for name in add)], 1) if add else coloured


def names_of(space: str, add: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the names of the channels that `channels_of` returns."""
    return tuple(name for part in (space, *add) for name in CHANNELS[part])
