"""Methods, each as settings of the same step: those of the paper's Table 1, CSS (mix) as its code was released, others.

Every method of the table adds one thing to the one before: a teacher's labels, mixing, a contrastive loss, the second
space. What a method does not name stays as the preset has it: thresholds, strength of augmentation, schedules, and the
streams that it does not name.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from trainers.config import TrainConfig
from trainers.errors import ConfigError
from trainers.overrides import apply_overrides

Setting = str | float
METHOD = "method"
"""In place of a path: the name of a method, whose settings stand for it."""

_FROM_LOGITS: Mapping[str, Setting] = {"css.label_strategy": "logit", "css.indicator": "confidence"}

_WITHOUT_CONTRAST: Mapping[str, Setting] = {**_FROM_LOGITS, "loss.lambda_c": 0.0, "augment.strong.mix": "cutmix"}

_OF_FIXMATCH: Mapping[str, Setting] = {
    **_WITHOUT_CONTRAST,
    "loss.unsupervised": "all_pixels",
    "loss.lambda_s": 0.5,
    "loss.lambda_u": 0.5,
}

_COMPLEMENTARY_VIEWS: Mapping[str, Setting] = {
    "streams.first.weight": 0.5,
    "streams.first.features": "complementary",
    "streams.second.weight": 0.5,
    "streams.second.features": "complementary",
    "schedule.joint_forward": False,
}

_CROSS_LABELS: Mapping[str, Setting] = {
    **_FROM_LOGITS,
    "model.students": 2,
    "loss.lambda_c": 0.0,
    "thresholds.delta_u": 0.0,
    "ema.teacher_momentum": 0.0,
    "ema.teacher_norm": "train",
    "schedule.joint_forward": False,
    "evaluation.network": "student",
}

METHODS: dict[str, Mapping[str, Setting]] = {
    "supervised": {"loss.lambda_u": 0.0, "loss.lambda_c": 0.0, "evaluation.network": "student"},
    "mean_teacher": {**_FROM_LOGITS, "loss.lambda_c": 0.0, "augment.strong.mix": "none"},
    "cutmix": _WITHOUT_CONTRAST,
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
    "reco": {
        **_FROM_LOGITS,
        "loss.unsupervised": "image_share",
        "loss.lambda_c": 1.0,
        "loss.lambda_c_ramp": "constant",
        "ema.prototype_source": "student",
        "ema.prototype_momentum": 0.0,
        "ema.teacher_norm": "train",
        "augment.strong.mix": "classmix",
    },
    "prcl": {
        **_FROM_LOGITS,
        "model.representation": "gaussian",
        "optimizer.variance_lr_factor": 1 / 64,
        "thresholds.delta_s": 0.8,
        "loss.unsupervised": "image_share",
        "loss.lambda_c": 1.0,
        "loss.lambda_c_ramp": "exp",
        "loss.temperature": 100.0,
        "ema.prototype_source": "student",
        "ema.prototype_momentum": 0.0,
        "ema.teacher_norm": "train",
        "augment.strong.mix": "classmix",
    },
    "fixmatch": {**_OF_FIXMATCH, "schedule.joint_forward": True},
    "unimatch": {
        **_OF_FIXMATCH,
        "streams.first.weight": 0.25,
        "streams.second.weight": 0.25,
        "streams.third.weight": 0.5,
        "streams.third.view": "weak",
        "streams.third.features": "dropout",
        "schedule.joint_forward": False,
        "ema.teacher_momentum": 0.0,
        "ema.teacher_norm": "train",
        "evaluation.network": "student",
    },
    "unimatch_v2": {**_OF_FIXMATCH, **_COMPLEMENTARY_VIEWS},
    "pixcon": {**_OF_FIXMATCH, **_COMPLEMENTARY_VIEWS, "bank.weight": 0.1},
    "u2pl": {
        **_FROM_LOGITS,
        "thresholds.kind": "entropy_percentile",
        "thresholds.percentile": 0.8,
        "loss.unsupervised": "pixel_by_share",
        "loss.contrast": "unreliable",
        "loss.labelled_first": 0.0125,
        "loss.lambda_c": 1.0,
        "loss.lambda_c_ramp": "constant",
        "loss.temperature": 0.5,
        "loss.negatives": 50,
        "ema.prototype_source": "teacher",
        "ema.prototype_momentum": 0.0,
        "augment.strong.mix": "cutmix",
        "augment.strong.mix_probability": 0.5,
    },
    "cps": {**_CROSS_LABELS, "loss.lambda_u": 1.5, "streams.first.view": "weak"},
    "cps_cutmix": {**_CROSS_LABELS, "loss.lambda_u": 1.0, "augment.strong.mix": "cutmix"},
    "adversarial": {
        **_FROM_LOGITS,
        "adversary.weight_labelled": 0.01,
        "adversary.weight_unlabelled": 0.001,
        "css.unsupervised_gate": "discriminator",
        "thresholds.delta_u": 0.2,
        "loss.lambda_u": 0.1,
        "loss.lambda_c": 0.0,
        "loss.labelled_first": 0.25,
        "streams.first.view": "weak",
        "ema.teacher_momentum": 0.0,
        "ema.teacher_norm": "train",
        "schedule.joint_forward": False,
        "evaluation.network": "student",
    },
    "unimatch_css": {
        **_COMPLEMENTARY_VIEWS,
        "css.label_strategy": "mix",
        "css.indicator": "similarity",
        "css.indicator_temperature": 0.25,
        "loss.unsupervised": "all_pixels",
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

Others, of which the numbers that a preset has are published for their own data (`trainers/presets/unimatch.py`):

- `reco`: ReCo (Liu et al., ICLR 2022, arXiv 2104.04465), from which CSS descends: labels of the logits, L_c towards a
  batch's own class means, ClassMix. Recalled and not looked up: 256 queries, 512 negatives, temperature 0.5,
  thresholds 0.97 and 0.7, 200 passes through the labelled images; the published code's teacher is never set to
  evaluation mode.
- `prcl`: PRCL (Xie et al., AAAI 2023, arXiv 2210.14670; its `prcl.py`, `loss.py` and configs): ReCo with Gaussians. A
  head gives each pixel D variances; the mutual likelihood score takes the place of every cosine in L_c, at temperature
  100; class means and their variances are the product of a class's Gaussians over all GPUs' batches; lambda_c falls
  from 1; delta_s is 0.8; the head for variances learns at 5e-5, 1/64 of the rest. As published the score is a mean over
  D: of variances of 1/2, L_c is that of cosines at temperature 100 D. Different here: that head is a 1x1 convolution,
  norm, ReLU and another, without unit rows and a second norm before its sigmoid, and variances are 1e-6 at least; it is
  in the teacher, too; negatives are a rank's, shared by groups of anchors; L_c is divided by the classes with hard
  pixels; 16 images of 321 pixels, 200 epochs of 2000 images, SGD of 3.2e-3 and a decay of 5e-4 are a preset's.
- `fixmatch`: FixMatch with an averaged teacher, the baseline of UniMatch V2 (its `fixmatch.py`):
  L = (L_s + L_u) / 2, L_u divided by all pixels.
- `unimatch`: UniMatch (Yang et al., CVPR 2023, arXiv 2208.09910; its `unimatch.py`):
  L = (L_s + L_1 / 4 + L_2 / 4 + L_f / 2) / 2 of two strong views and of the weak one with dropout of features. The
  student labels: a teacher that is the student of the last step, in training mode. Different here: the partner in
  CutMix is another image of the same batch, labelled like it and not in evaluation mode; BatchNorm sees the weak view
  with the strong ones instead of the labelled images; the weak view passes the encoder for each use.
- `unimatch_v2`: UniMatch V2 (Yang et al., TPAMI 2025, arXiv 2410.10777; its `unimatch_v2.py`):
  L = (L_s + (L_1 + L_2) / 2) / 2 of two strong views that get complementary channels. Half of the images keep all
  channels: of all ranks' images here, of each GPU's there.
- `pixcon`: PixCon (arXiv 2607.03068 and its code): UniMatch V2 and 0.1 times InfoNCE of labelled pixels, which the
  student gives their label, against a bank of such pixels. Different here: the projection head is the representation
  head, with one 3x3 convolution; which pixels of a class go in is drawn without an order even where they are few;
  several GPUs share a bank. The published code draws which channels to keep once a batch, for every image alike, behind
  its decoder; here they are those of UniMatch V2.
- `u2pl`: U2PL (Wang et al., CVPR 2022, arXiv 2203.03884; its `train_semi.py` and `loss_helper.py`): L_u of the 80 to
  100 % of pixels whose entropy is lowest, divided by their number and by their share; L_c of reliable pixels (20 to
  0 %) with more than 0.3 for their class towards the class means of the teacher's representations, against 50
  negatives out of queues of unreliable ones, classes of ranks 3 to 20, temperature 0.5; the first of 80 epochs has
  labelled images alone (on Cityscapes none has). Different here: 256 queries and an EMA of 0.99 are a preset's; the
  teacher is no copy of the student after that epoch; it sees weak views once, in evaluation mode, where there it sees
  mixed images, too, in training mode; percentiles are of all GPUs' pixels, of unmixed images; half of the images are
  mixed, and not half of the batches; a queue keeps 2048 of each class and takes 128 a step, not 30 000 (background
  50 000) and all; negatives are the paper's, where the code asks for the label of the class as well, which no labelled
  pixel can have and few unlabelled ones do. Its auxiliary head on Cityscapes is `model.auxiliary`.
- `cps`: CPS (Chen et al., CVPR 2021, arXiv 2106.01226; its `voc8.res50v3+.CPS` and `.CPS+CutMix`): two students of
  unlike heads, L = L_s + 1.5 L_u summed over both, where every unlabelled pixel has the label of the other student, in
  training mode; the first one is scored. 1.5 is VOC's; Cityscapes has 6. Different here: L_u has unlabelled images
  alone, where there labelled ones have such labels, too; its labels are of a forward of their own; SGD of 0.005 a GPU
  and a decay of 1e-4 are a preset's.
- `cps_cutmix`: the same with CutMix of the unlabelled images, labelled as they are unmixed, and 1 in place of 1.5.
  Different here: one box in place of three; the partner is another image of the same batch, and not of a second one;
  other strong augmentation, of which there is none there, is a preset's.
- `adversarial`: Hung et al. (BMVC 2018, arXiv 1802.07934; their `train.py`): L = L_s + 0.01 and 0.001 times what the
  student loses to a discriminator on labelled and on unlabelled images, + 0.1 L_u of the pixels to which the
  discriminator gives at least 0.2, labelled by the student itself, after a quarter of the horizon. The student labels:
  a teacher that is the student of the last step, in training mode, sees the same view. Different here: pixels
  without a pseudo-label, as around an image, are in no adversarial loss; labels that the discriminator sees are of the
  same batch, and not of a second one; SGD of 2.5e-4 (heads ten times as much) and a batch of 10 are a preset's.
- `unimatch_css`: nobody's: the two views of UniMatch V2 with CSS (mix)'s labels, prototypes and contrastive loss;
  L = L_s + (L_1 + L_2) / 2 + lambda_c L_c, the weights of Eq. 6.
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


def with_method(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return overrides with the settings of their `method`, if they name one, below what they set themselves.

    Raises:
        ConfigError: there is no method of this name.
    """
    own = dict(overrides)
    name = own.pop(METHOD, None)
    return {**method_settings(None if name is None else str(name)), **own}


def configured(base: TrainConfig, overrides: Mapping[str, Any]) -> TrainConfig:
    """Return the config with overrides, of which `method` stands for the settings of that method.

    Raises:
        ConfigError: there is no such method or path, a value is out of range, or the method, which is not `supervised`,
            would read no unlabelled image, as in a supervised preset.
    """
    config, name = apply_overrides(base, with_method(overrides)), overrides.get(METHOD)
    if name not in (None, "supervised") and not config.uses_unlabelled:
        raise ConfigError(
            f"method {name} must have a loss on unlabelled images, got a config whose loss.lambda_u and loss.lambda_c "
            "are 0: set loss.lambda_u, or take a preset that is not supervised-only"
        )
    return config
