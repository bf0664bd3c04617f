"""Reader of the reference values; see README.md."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


@cache
def golden() -> dict[str, Tensor]:
    """Every array as a tensor; labels (bytes) as int64. Not to be written to."""
    with np.load(Path(__file__).with_name("css_golden.npz"), allow_pickle=False) as arrays:
        tensors = {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files}
    return {name: value.long() if value.dtype == torch.uint8 else value for name, value in tensors.items()}
