"""Presets: functions that return a whole config."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial

from trainers.config import TrainConfig
from trainers.errors import ConfigError
from trainers.presets.cpu import (
    CAMVID_CLASSES,
    camvid_css,
    camvid_lite0,
    camvid_other_drive,
    camvid_other_drives,
    camvid_two_drives,
    digits_css,
    digits_oracle,
    digits_supervised,
    supervised,
)
from trainers.presets.dinov2 import cityscapes_dinov2, voc_dinov2
from trainers.presets.folder import folder_css
from trainers.presets.paper import ade20k_css, cityscapes_css, coco_stuff_css, voc_blender_css, voc_css, voc_released
from trainers.presets.unimatch import cityscapes_unimatch_v2, voc_unimatch, voc_unimatch_v2

__all__ = ["CAMVID_CLASSES", "PRESETS", "load_preset", "supervised"]

PRESETS: dict[str, Callable[[], TrainConfig]] = {
    "digits_css": digits_css,
    "digits_supervised": digits_supervised,
    "digits_oracle": digits_oracle,
    "folder_css": folder_css,
    "camvid_css": camvid_css,
    "camvid_lite0": camvid_lite0,
    "camvid_lite0_20": partial(camvid_lite0, 20),
    "camvid_two_drives": camvid_two_drives,
    "camvid_other_drive": camvid_other_drive,
    "camvid_other_drives": camvid_other_drives,
    **{f"voc_css_{labelled}": partial(voc_css, labelled) for labelled in (92, 183, 366, 732, 1464)},
    **{f"voc_blender_css_{labelled}": partial(voc_blender_css, labelled) for labelled in (662, 1323, 2646, 5291)},
    **{f"voc_released_{labelled}": partial(voc_released, labelled) for labelled in (92, 183, 366, 732)},
    **{f"cityscapes_css_{labelled}": partial(cityscapes_css, labelled) for labelled in (186, 372, 744, 1488)},
    "voc_dinov2_s_92": partial(voc_dinov2, "small", 92),
    "voc_dinov2_b_92": partial(voc_dinov2, "base", 92),
    "cityscapes_dinov2_b_186": partial(cityscapes_dinov2, "base", 186),
    "voc_unimatch_92": partial(voc_unimatch, 92),
    "voc_unimatch_v2_s_92": partial(voc_unimatch_v2, "small", 92),
    "voc_unimatch_v2_b_92": partial(voc_unimatch_v2, "base", 92),
    "cityscapes_unimatch_v2_b_186": partial(cityscapes_unimatch_v2, "base", 186),
    "ade20k_css": ade20k_css,
    "coco_stuff_css": coco_stuff_css,
}


def load_preset(name: str) -> TrainConfig:
    """Return the config of a preset.

    Raises:
        ConfigError: there is no preset of this name.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"did you mean {near[0]}?" if near else "choose one of them"
        raise ConfigError(f"a preset must be one of {', '.join(PRESETS)}, got {name!r}: {hint}")
    return PRESETS[name]()
