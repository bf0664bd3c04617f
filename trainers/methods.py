"""Methods, each as settings of the same step: those of the paper's Table 1, and CSS (mix) as its code was released.

Every method of the table adds one thing to the one before: a teacher's labels, mixing, a contrastive loss, the second
space. What a method does not name stays as the preset has it, thresholds and schedules too.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from trainers.config import TrainConfig
from trainers.errors import ConfigError
from trainers.overrides import apply_overrides

Setting = str | float

_FROM_LOGITS: Mapping[str, Setting] = {"css.label_strategy": "logit", "css.indicator": "confidence"}

METHODS: dict[str, Mapping[str, Setting]] = {
    "supervised": {"loss.lambda_u": 0.0, "loss.lambda_c": 0.0, "evaluation.network": "student"},
    "mean_teacher": {**_FROM_LOGITS, "loss.lambda_c": 0.0, "augment.strong.mix": "none"},
    "cutmix": {**_FROM_LOGITS, "loss.lambda_c": 0.0, "augment.strong.mix": "cutmix"},
    "contrastive": {**_FROM_LOGITS, "augment.strong.mix": "cutmix"},
    "css_cross": {
        "css.label_strategy": "cross",
        "css.indicator": "similarity",
        "css.indicator_temperature": 0.1,
        "augment.strong.mix": "cutmix",
    },
    "css_mix": {
        "css.label_strategy": "mix",
        "css.indicator": "similarity",
        "css.indicator_temperature": 0.25,
        "augment.strong.mix": "cutmix",
    },
    "css_mix_released": {
        "css.label_strategy": "mix",
        "css.indicator": "similarity",
        "css.valid_indicator": "confidence",
        "css.unsupervised_gate": "own",
        "css.indicator_temperature": 0.5,
        "thresholds.unit": "probability",
        "thresholds.delta_s": 0.8,
        "loss.unsupervised": "image_share",
        "ema.prototype_source": "student",
        "ema.teacher_norm": "train",
        "augment.strong.mix": "cutmix",
    },
}
"""Overrides of a preset, by the name of the method.

- `supervised`: the labelled images alone; the student is scored, as in the paper.
- `mean_teacher`: and L_u on the labels of the moving average (Eq. 1, 8), strong augmentation without mixing. Tarvainen
  and Valpola (2017) compare softmax outputs by mean squares; here, as in the other rows, the loss is cross-entropy.
- `cutmix`: and CutMix (French et al., 2020).
- `contrastive`: and L_c, with labels and indicator from the logits: the paper's baseline.
- `css_cross`, `css_mix`: labels and indicator from both spaces (section 3.3), at the temperatures that the constructors
  of the published code have.
- `css_mix_released`: CSS (mix) as the scripts of the published code run it, where they differ from the paper:
  temperature 0.5, at which the indicator stays below 0.733 with 21 classes and every valid pixel is hard; valid pixels
  by the confidence; L_u over all pixels, weighted by an image's confident share; prototypes of the student's
  representations; a teacher that normalises by the batch. Batch and iterations are a preset's (`voc_released_92`).
"""


def method_settings(name: str | None) -> Mapping[str, Setting]:
    """Return the settings of a method; none for no name.

    Raises:
        ConfigError: there is no method of this name.
    """
    if name is None:
        return {}
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"did you mean {near[0]}?" if near else "choose one of them"
        raise ConfigError(f"a method must be one of {', '.join(METHODS)}, got {name!r}: {hint}")
    return METHODS[name]


def apply_method(config: TrainConfig, name: str) -> TrainConfig:
    """Return the preset as this method.

    Raises:
        ConfigError: there is no method of this name, or the preset does not allow its settings.
    """
    return apply_overrides(config, method_settings(name))
