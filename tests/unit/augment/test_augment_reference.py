"""Strong augmentation of a batch is what the definitions say of each image, in the published order and in ours."""

from typing import Any

import numpy as np
import pytest
import torch
from reference.plain_augment import Draws, Sample, strong_views

from trainers.augment.geometry import draw_geometry
from trainers.augment.maps import Maps
from trainers.augment.mixing import draw_mix
from trainers.augment.photometric import draw_blur, draw_grey, draw_jitter
from trainers.augment.pipeline import strong_augment
from trainers.config import StrongAugmentConfig
from trainers.randomness import generator

SEED = 11
N, HEIGHT, WIDTH = 8, 33, 37

PUBLISHED: dict[str, Any] = {
    "order": "mix_first",
    "place": "anywhere",
    "scale": (0.5, 1.5),
    "scale_draw": "uniform",
    "flip": 0.5,
    "brightness": 0.25,
    "contrast": 0.25,
    "saturation": 0.25,
    "hue": 0.25,
    "blur_sigma": (0.15, 1.15),
    "box": "half",
    "classmix": "published",
}
"""Of the published code on VOC, with its CutMix (generalframeworks/dataset_helpers/VOC.py, networks/ddp_model.py)."""
OURS: dict[str, Any] = {"scale": (0.7, 1.6), "shift": 0.2, "flip": 0.5}

CASES = {
    "published": PUBLISHED,
    "published classmix": PUBLISHED | {"mix": "classmix"},
    "published cutout": PUBLISHED | {"mix": "cutout"},
    "ours": OURS,
    "ours classmix": OURS | {"mix": "classmix", "mix_probability": 0.7},
    "ours cutout": OURS | {"mix": "cutout"},
    "ours in the published order": OURS | {"order": "mix_first"},
    "some grey": OURS | {"grey": 0.5},
    "other boxes": OURS | {"box_area": (0.05, 0.3), "box_aspect": (0.4, 3.0), "place": "anywhere"},
}


def batch() -> Maps:
    """Blocks of labels, some ignored, and images that are smooth where labels are alike."""
    g = torch.Generator().manual_seed(0)
    label = torch.randint(0, 7, (N, 9, 10), generator=g).repeat_interleave(4, 1).repeat_interleave(4, 2)
    label = label[:, :HEIGHT, :WIDTH].contiguous()
    label[label == 6] = 255
    return {
        "image": torch.rand(N, 3, HEIGHT, WIDTH, generator=g),
        "label": label,
        "confidence": torch.rand(N, HEIGHT, WIDTH, generator=g),
    }


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_a_batch_is_augmented_as_the_definitions_say_of_each_image(changes: dict[str, Any]) -> None:
    config, maps = StrongAugmentConfig.model_validate(changes), batch()
    ours = strong_augment(maps, config, SEED, 3, 0, 1)

    g = generator(SEED, "augment.strong", 3)
    geometry, jitter, blur = (draw(config, N, g) for draw in (draw_geometry, draw_jitter, draw_blur))
    mix = draw_mix(config, N, (HEIGHT, WIDTH), g)
    draws = Draws(geometry, jitter, blur, mix, draw_grey(config, N, g))
    samples = [Sample(*(maps[key][row].double().numpy() for key in maps)) for row in range(N)]
    for row, view in enumerate(strong_views(samples, draws, config)):
        assert np.array_equal(ours["label"][row].numpy(), view.label)
        assert np.allclose(ours["confidence"][row].numpy(), view.confidence, atol=1e-7)
        # Places are off by up to 1e-5 pixels in float32, and the rows of I and Q sum to 1e-4.
        assert np.allclose(ours["image"][row].numpy(), view.image, atol=1e-3)
