"""A vision transformer of DINOv2-small's shape, but narrow and of few blocks, by a name that timm knows once this is
imported; and its weights by Meta's names."""

from __future__ import annotations

from typing import Any

import torch
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer, _create_vision_transformer
from torch import Tensor

NARROW, REGISTERS = "vit_narrow_patch14", "vit_narrow_patch14_reg4"
DPT = {
    "model.arch": "dpt", "model.encoder": NARROW, "model.norm": "none", "model.head_width": 16,
    "augment.weak.crop": (28, 28), "optimizer.kind": "adamw", "optimizer.lr": 0.003,
}  # fmt: skip
"""Settings of the smallest training with it: two by two patches."""


def _narrow(name: str, **changes: Any) -> VisionTransformer:
    shape = {"img_size": 70, "patch_size": 14, "embed_dim": 32, "depth": 4, "num_heads": 2, "init_values": 1e-5}
    network: VisionTransformer = _create_vision_transformer(name, **shape | changes)
    return network


@register_model
def vit_narrow_patch14(pretrained: bool = False, **changes: Any) -> VisionTransformer:
    """As DINOv2-small, with 4 blocks of 32 channels, for images of 70 pixels."""
    return _narrow(NARROW, **changes)


@register_model
def vit_narrow_patch14_reg4(pretrained: bool = False, **changes: Any) -> VisionTransformer:
    """Likewise, with four registers."""
    return _narrow(REGISTERS, reg_tokens=4, no_embed_class=True, **changes)


def with_metas_names(network: VisionTransformer) -> dict[str, Tensor]:
    """The weights of a network by the names of Meta's files, which have a position and a mask's token more."""
    tensors = {name: tensor.clone() for name, tensor in network.state_dict().items() if not name.startswith("head")}
    tensors["mask_token"] = torch.rand(1, network.embed_dim)
    if "reg_token" in tensors:
        tensors["register_tokens"] = tensors.pop("reg_token")
        of_class = torch.rand(1, 1, network.embed_dim)  # timm adds it to the class token
        tensors["cls_token"] = tensors["cls_token"] - of_class
        tensors["pos_embed"] = torch.cat([of_class, tensors["pos_embed"]], dim=1)
    return tensors
