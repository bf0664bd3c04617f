"""The paper's presets, field by field: what is published, and where; what is ours, and why.

Paper: CSS, "Space Engage", ICCV 2023 (arXiv 2307.09755). Code: the repository that its authors published.
"""

from __future__ import annotations

from typing import Any

import pytest

from trainers.config.adversary import AdversaryConfig
from trainers.overrides import flatten
from trainers.presets import PRESETS, load_preset

DINOV2 = {name for name in PRESETS if "_dinov2_" in name}
UNIMATCH = {name for name in PRESETS if "_unimatch_" in name}
PAPER = (
    {name for name in PRESETS if name.startswith(("voc_", "cityscapes_", "ade20k_", "coco_stuff_"))} - DINOV2 - UNIMATCH
)
VOC = "voc_css_92"

PUBLISHED: dict[str, tuple[Any, str]] = {
    "model.arch": ("deeplabv3plus", "paper, settings of training"),
    "model.backbone": ("resnet101", "paper, settings of training"),
    "model.stem": ("standard", "paper, settings of training; a deep one to compare with other methods"),
    "model.backbone_weights": ("imagenet", "paper, settings of training"),
    "model.output_stride": (8, "code: DeepLabv3Plus_with_rep"),
    "model.aspp_width": (256, "code: DeepLabv3Plus_with_rep"),
    "model.head_width": (256, "code: DeepLabv3Plus_with_rep"),
    "model.representation_dim": (256, "code: DeepLabv3Plus_with_rep"),
    "model.representation_init": ("default", "code: DeepLabv3Plus_with_rep"),
    "model.norm": ("auto", "code: SyncBatchNorm in every script; a CPU has none"),
    "model.pool_norm": (True, "code: ASPP's pooling branch"),
    "css.label_strategy": ("mix", "paper, section 3.3"),
    "css.indicator": ("similarity", "paper, Eq. 5"),
    "css.indicator_temperature": (0.25, "code: default of the constructor in mix"),
    "css.valid_indicator": ("same", "paper, Eq. 5"),
    "css.unsupervised_gate": ("logit", "paper, Eq. 8"),
    "css.cross_warmup": (20.0, "paper, section 3.3"),
    "css.cross_warmup_unit": ("labelled_epochs", "code: an epoch is a pass through the labelled loader"),
    "thresholds.delta_u": (0.97, "paper, Eq. 8"),
    "thresholds.delta_w": (0.7, "code: VOC_config_baseline.yaml"),
    "thresholds.delta_s": (0.97, "code: VOC_config_baseline.yaml; 0.8 where its scripts set it"),
    "thresholds.unit": ("probability", "paper"),
    "loss.lambda_u": (1.0, "paper, Eq. 6"),
    "loss.lambda_c": (1.0, "code: Ramp_Scheduler.max_value in both YAML files"),
    "loss.lambda_c_ramp": ("exp", "code: exp(-5 (epoch / epochs)^2), here on the whole horizon"),
    "loss.supervised": ("cross_entropy", "paper, Eq. 7"),
    "loss.ohem_threshold": (0.7, "code: ohem"),
    "loss.ohem_min_kept": (50_000, "code: 50 000 times the images of a rank's batch"),
    "loss.class_weights": (None, "code"),
    "loss.unsupervised": ("pixel", "paper, Eq. 8"),
    "loss.temperature": (0.5, "code: VOC_config_baseline.yaml"),
    "loss.queries": (256, "code: VOC_config_baseline.yaml"),
    "loss.negatives": (512, "code: VOC_config_baseline.yaml"),
    "ema.teacher_momentum": (0.99, "code: VOC_config_baseline.yaml"),
    "ema.prototype_momentum": (0.99, "paper, Eq. 3"),
    "ema.prototype_source": ("teacher", "paper, Eq. 2"),
    "optimizer.kind": ("sgd", "paper, settings of training"),
    "optimizer.lr": (0.0064, "paper, settings of training"),
    "optimizer.momentum": (0.9, "code: SGD, Nesterov"),
    "optimizer.weight_decay": (5e-4, "code: VOC_config_baseline.yaml"),
    "optimizer.power": (0.9, "paper, settings of training"),
    "optimizer.min_lr": (1e-4, "code: PolyLR"),
    "optimizer.min_lr_rule": ("max", "code: PolyLR"),
    "schedule.steps": (40_000, "paper, settings of training"),
    "schedule.labelled_batch": (8, "paper: 16 images, half of them labelled"),
    "schedule.unlabelled_batch": (8, "paper: 16 images, half of them labelled"),
    "schedule.joint_forward": (False, "code: two forwards of the student"),
    "evaluation.network": ("teacher", "code: the EMA model is scored"),
    "evaluation.mode": ("whole", "code; sliding windows on Cityscapes"),
    "augment.weak.crop": ((512, 512), "paper, settings of training"),
    "augment.weak.scale": ((1.0, 1.0), "code: the teacher sees a crop"),
    "augment.weak.flip": (0.0, "code: the teacher sees a crop"),
    "augment.labelled.scale": ((0.5, 1.5), "code: VOC_BuildData"),
    "augment.labelled.scale_draw": ("uniform", "code: random.uniform"),
    "augment.labelled.flip": (0.5, "code: transform"),
    "augment.labelled.jitter": (0.8, "code: transform"),
    "augment.labelled.blur": (0.5, "code: transform"),
    "augment.strong.scale": ((0.5, 1.5), "code: the student's view of unlabelled images"),
    "augment.strong.scale_draw": ("uniform", "code: random.uniform"),
    "augment.strong.place": ("anywhere", "code: random crop"),
    "augment.strong.flip": (0.5, "code: transform"),
    "augment.strong.jitter": (0.8, "code: transform"),
    "augment.strong.blur": (0.5, "code: transform"),
    "augment.strong.order": ("mix_first", "code: geometry, mixing, then colours and flip"),
    "augment.strong.mix": ("cutmix", "paper, settings of training"),
    "augment.strong.mix_probability": (1.0, "code: every batch"),
    "augment.strong.box": ("half", "code: generate_cut_gather"),
    **{
        f"augment.{images}.{name}": (value, "code: ColorJitter and GaussianBlur")
        for images in ("labelled", "strong")
        for name, value in (
            ("brightness", 0.25),
            ("contrast", 0.25),
            ("saturation", 0.25),
            ("hue", 0.25),
            ("blur_sigma", (0.15, 1.15)),
        )
    },
    "seed": (3407, "code"),
}
"""Values of `voc_css_92`, and their sources. The YAML files of the code are its `config/*_config_baseline.yaml`."""

OURS: dict[str, str] = {
    **{
        f"bank.{path}": "there is none"
        for path in ("weight", "pixels", "size", "anchors", "anchors_in_all", "temperature")
    },
    **{f"adversary.{path}": "there is none" for path in AdversaryConfig.model_fields},
    "thresholds.kind": "delta_u, delta_w and delta_s are fixed, as in the paper",
    "thresholds.percentile": "read with percentiles of the entropy only",
    "loss.contrast": "anchors are hard pixels, as in the paper",
    "loss.labelled_first": "all losses act from the first step",
    **{
        f"unreliable.{path}": "read with the contrast of unreliable pixels only"
        for path in ("share", "anchor_confidence", "low_rank", "high_rank", "size", "entries")
    },
    "augment.labelled.grey": "no image loses its colours",
    "augment.strong.grey": "no image loses its colours",
    "loss.lambda_s": "L_s has no weight in Eq. 6",
    "loss.lambda_w": "there are no weak labels",
    "css.veto": "there are no weak labels",
    **{
        f"streams.{name}.{path}": "there is one strong view of weight 1, whose features are kept"
        for name in ("first", "second", "third")
        for path in ("weight", "view", "strong", "features")
    },
    "model.width": "of the tiny network",
    "model.encoder": "read with encoders of timm only",
    "model.freeze": "every parameter is trained",
    "model.students": "one is trained",
    "model.auxiliary": "there is no auxiliary head",
    "loss.auxiliary": "read with an auxiliary head only",
    "loss.auxiliary_targets": "read with an auxiliary head only",
    "model.representation": "points",
    "model.input.space": "RGB",
    "model.input.add": "the image alone",
    "model.drop_path": "of a ViT",
    "model.checkpointing": "of a ViT",
    "optimizer.layer_decay": "of a ViT",
    "optimizer.variance_lr_factor": "of Gaussians",
    "optimizer.encoder_lr_factor": "every parameter has the same learning rate",
    "augment.weak.scale_draw": "read where the scale is a range",
    "augment.strong.shift": "read where the place is centred",
    "augment.strong.box_area": "read where the box is drawn by its area",
    "augment.strong.box_aspect": "read where the box is drawn by its area",
    "augment.strong.classmix": "read with ClassMix only",
    "ema.teacher_norm": "the published teacher keeps the statistics of the start and normalises by the batch",
    "loss.negative_groups": "the same expectation with less memory",
    "loss.ohem_scope": "read with OHEM only",
    "schedule.evaluate_every": "the published code evaluates each epoch of the labelled loader",
    "schedule.accumulate": "the same batch in one part",
    "evaluation.both": "reports the teacher alone",
    "evaluation.window": "read with sliding windows only",
    "evaluation.overlap": "read with sliding windows only",
    "evaluation.batch": "changes no score",
    "evaluation.quality_images": "measures, changes nothing",
    "evaluation.representation_pixels": "drawn, changes nothing",
    "compute.precision": "bfloat16: twice the speed on GPUs that have it; the published code trains in float32",
    "compute.compile": "changes no result",
    "compute.graph": "changes no result",
    "compute.deterministic": "changes no result but the last bits",
}
"""Fields whose values are not published or not followed, and why."""

OTHERS: dict[str, dict[str, Any]] = {
    "cityscapes_css_186": {
        "optimizer.lr": 0.0038, "augment.labelled.scale": (1.0, 1.0),
        "augment.strong.scale": (0.5, 2.0), "augment.weak.crop": (768, 768),
        "schedule.labelled_batch": 4, "schedule.unlabelled_batch": 4, "schedule.steps": 80_000,
        "loss.supervised": "ohem", "loss.ohem_scope": "batch",
        "evaluation.mode": "sliding", "evaluation.window": (768, 768),
    },
    "ade20k_css": {"schedule.steps": 80_000},
    "coco_stuff_css": {},
    "voc_released_92": {
        "schedule.steps": 80_000, "schedule.labelled_batch": 32, "schedule.unlabelled_batch": 32,
        "css.indicator_temperature": 0.5, "css.valid_indicator": "confidence", "css.unsupervised_gate": "own",
        "thresholds.delta_s": 0.8, "loss.unsupervised": "image_share", "ema.prototype_source": "student",
        "ema.teacher_norm": "train",
    },
}  # fmt: skip
"""What is published for other data sets, or by the scripts of the code, instead."""

NOT_PUBLISHED = {
    "ade20k_css": {"thresholds.unit": "of_maximum"},  # with K = 150 the indicator cannot reach delta_s
    "coco_stuff_css": {"thresholds.unit": "of_maximum"},  # with K = 171, neither
}


def settings(name: str) -> dict[str, Any]:
    return {path: value for path, value in flatten(load_preset(name).model_dump()).items() if "data." not in path}


def test_every_field_is_published_or_ours_for_a_reason() -> None:
    assert PUBLISHED.keys() & OURS.keys() == set()
    assert settings(VOC).keys() == PUBLISHED.keys() | OURS.keys()


@pytest.mark.parametrize("path", PUBLISHED)
def test_a_field_has_its_published_value(path: str) -> None:
    value, source = PUBLISHED[path]
    assert settings(VOC)[path] == value, source


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.filterwarnings("ignore:thresholds.delta_s=0.8 excludes no pixel")  # as published
def test_other_presets_differ_in_what_is_published_for_them(name: str) -> None:
    voc, other = settings(VOC), settings(name)
    free = {"schedule.evaluate_every", "evaluation.batch"}
    different = {path: other[path] for path in voc if voc[path] != other[path] and path not in free}
    assert different == OTHERS[name] | NOT_PUBLISHED.get(name, {})


@pytest.mark.parametrize("name", sorted(PAPER - OTHERS.keys()))
@pytest.mark.filterwarnings("ignore:thresholds.delta_s=0.8 excludes no pixel")
def test_presets_of_a_data_set_differ_in_the_number_of_labels_alone(name: str) -> None:
    like = next((like for like in ("cityscapes_css_186", "voc_released_92") if like[:8] == name[:8]), VOC)
    assert settings(name) == settings(like)


UNIMATCH_V2: dict[str, tuple[Any, str]] = {
    "model.arch": ("dpt", "fixmatch.py"),
    "model.norm": ("none", "model/semseg/dpt.py: use_bn=False"),
    "augment.weak.scale": ((0.5, 2.0), "dataset/semi.py: resize"),
    "augment.weak.scale_draw": ("uniform", "dataset/transform.py: random.randint"),
    "augment.weak.flip": (0.5, "dataset/semi.py: hflip"),
    "augment.labelled": (None, "dataset/semi.py: train_l is augmented as the teacher's view"),
    "augment.strong.jitter": (0.8, "dataset/semi.py"),
    "augment.strong.brightness": (0.5, "dataset/semi.py: ColorJitter"),
    "augment.strong.contrast": (0.5, "dataset/semi.py: ColorJitter"),
    "augment.strong.saturation": (0.5, "dataset/semi.py: ColorJitter"),
    "augment.strong.hue": (0.25, "dataset/semi.py: ColorJitter"),
    "augment.strong.blur": (0.5, "dataset/semi.py: blur"),
    "augment.strong.blur_sigma": ((0.1, 2.0), "dataset/transform.py: blur"),
    "augment.strong.mix": ("cutmix", "dataset/semi.py: obtain_cutmix_box"),
    "augment.strong.mix_probability": (0.5, "dataset/semi.py: obtain_cutmix_box"),
    "augment.strong.box_area": ((0.02, 0.4), "dataset/transform.py: obtain_cutmix_box"),
    "thresholds.delta_u": (0.95, "configs: conf_thresh"),
    "loss.lambda_u": (1.0, "fixmatch.py: (loss_x + loss_u_s) / 2"),
    "loss.unsupervised": ("all_pixels", "fixmatch.py: divided by the pixels that are not ignored"),
    "ema.teacher_momentum": (0.996, "fixmatch.py: ema_ratio"),
    "optimizer.kind": ("adamw", "fixmatch.py"),
    "optimizer.lr": (2e-4, "configs: lr of 5e-6, lr_multi of 40"),
    "optimizer.encoder_lr_factor": (1 / 40, "configs: lr_multi"),
    "optimizer.momentum": (0.9, "fixmatch.py: betas"),
    "optimizer.weight_decay": (0.01, "fixmatch.py"),
    "optimizer.power": (0.9, "fixmatch.py"),
    "optimizer.min_lr": (0.0, "fixmatch.py"),
    "schedule.joint_forward": (True, "fixmatch.py: labelled and strong images in one batch"),
}
"""What UniMatch V2 publishes for all of its data sets (arXiv 2410.10777 and its code), and where."""

OF_A_DATA_SET: dict[str, dict[str, Any]] = {
    "voc": {"augment.weak.crop": (518, 518), "schedule.labelled_batch": 4 * 4, "schedule.unlabelled_batch": 4 * 4,
            "loss.supervised": "cross_entropy", "evaluation.mode": "whole"},
    "cityscapes": {"augment.weak.crop": (798, 798),
                   "schedule.labelled_batch": 2 * 4, "schedule.unlabelled_batch": 2 * 4,
                   "loss.supervised": "ohem", "loss.ohem_threshold": 0.7, "loss.ohem_scope": "batch",
                   "evaluation.mode": "sliding", "evaluation.window": (798, 798)},
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(DINOV2))
def test_presets_on_dinov2_have_what_unimatch_v2_publishes(name: str) -> None:
    found = settings(name) | {"augment.labelled": load_preset(name).augment.labelled}
    expected = {path: value for path, (value, _) in UNIMATCH_V2.items()} | OF_A_DATA_SET[name.partition("_")[0]]
    assert {path: found[path] for path in expected} == expected


@pytest.mark.parametrize(
    ("name", "images", "labelled", "a_gpu", "epochs"),
    [("voc_dinov2_b_92", 10_582, 92, 4, 60), ("cityscapes_dinov2_b_186", 2975, 186, 2, 180)],
)
def test_their_steps_are_the_published_passes_through_the_unlabelled_images_on_four_gpus(
    name: str, images: int, labelled: int, a_gpu: int, epochs: int
) -> None:
    share = -(-(images - labelled) // 4)  # the sampler repeats images until all ranks have as many
    assert load_preset(name).schedule.steps == epochs * (share // a_gpu)  # the loader drops the last batch
    kept = load_preset("cityscapes_dinov2_b_186").loss.ohem_min_kept
    assert kept * 2 == 200_000  # of the two images of a GPU


OF_V2 = {
    "streams.first.weight": (0.5, "unimatch_v2.py: (loss_u_s1 + loss_u_s2) / 2"),
    "streams.second.weight": (0.5, "unimatch_v2.py: (loss_u_s1 + loss_u_s2) / 2"),
    "streams.first.features": ("complementary", "model/semseg/dpt.py: comp_drop"),
    "streams.second.features": ("complementary", "model/semseg/dpt.py: comp_drop"),
    "loss.lambda_s": (0.5, "unimatch_v2.py: (loss_x + loss_u_s) / 2"),
    "loss.lambda_u": (0.5, "unimatch_v2.py: (loss_x + loss_u_s) / 2"),
    "loss.lambda_c": (0.0, "unimatch_v2.py"),
    "css.label_strategy": ("logit", "unimatch_v2.py: argmax of the logits"),
    "css.indicator": ("confidence", "unimatch_v2.py: the largest probability"),
    "augment.strong.grey": (0.2, "dataset/semi.py: RandomGrayscale"),
    "schedule.joint_forward": (False, "unimatch_v2.py: labelled images apart"),
}
"""What the presets of UniMatch V2 have otherwise than those of CSS on DINOv2."""


@pytest.mark.parametrize("name", sorted(name for name in UNIMATCH if "_v2_" in name))
def test_presets_of_unimatch_v2_differ_from_those_on_dinov2_in_its_method_and_grey_images(name: str) -> None:
    base, found = settings(name.replace("_unimatch_v2_", "_dinov2_")), settings(name)
    different = {path: found[path] for path in base if base[path] != found[path]}
    assert different == {path: value for path, (value, _) in OF_V2.items()}


OF_V1: dict[str, tuple[Any, str]] = {
    "model.arch": ("deeplabv3plus", "model/semseg/deeplabv3plus.py"),
    "model.backbone": ("resnet101", "configs/pascal.yaml"),
    "model.output_stride": (16, "configs/pascal.yaml: replace_stride_with_dilation, dilations"),
    "model.pool_norm": (True, "model/semseg/deeplabv3plus.py: ASPPPooling"),
    "model.norm": ("auto", "unimatch.py: SyncBatchNorm"),
    "augment.weak.crop": ((321, 321), "configs/pascal.yaml"),
    "augment.weak.scale": ((0.5, 2.0), "dataset/semi.py: resize"),
    "augment.strong.grey": (0.2, "dataset/semi.py: RandomGrayscale"),
    "augment.strong.mix_probability": (0.5, "dataset/semi.py: obtain_cutmix_box"),
    "thresholds.delta_u": (0.95, "configs/pascal.yaml: conf_thresh"),
    "streams.first.weight": (0.25, "unimatch.py: loss"),
    "streams.second.weight": (0.25, "unimatch.py: loss"),
    "streams.third.weight": (0.5, "unimatch.py: loss"),
    "streams.third.view": ("weak", "unimatch.py: preds_fp of img_u_w"),
    "streams.third.features": ("dropout", "model/semseg/deeplabv3plus.py: Dropout2d(0.5)"),
    "loss.lambda_s": (0.5, "unimatch.py: loss"),
    "loss.lambda_u": (0.5, "unimatch.py: loss"),
    "loss.unsupervised": ("all_pixels", "unimatch.py: divided by the pixels that are not ignored"),
    "ema.teacher_momentum": (0.0, "unimatch.py: the student labels"),
    "evaluation.network": ("student", "unimatch.py"),
    "optimizer.kind": ("sgd", "unimatch.py"),
    "optimizer.lr": (0.01, "configs/pascal.yaml: lr of 0.001, lr_multi of 10"),
    "optimizer.encoder_lr_factor": (0.1, "configs/pascal.yaml: lr_multi"),
    "optimizer.momentum": (0.9, "unimatch.py"),
    "optimizer.weight_decay": (1e-4, "unimatch.py"),
    "schedule.labelled_batch": (2 * 4, "configs/pascal.yaml: batch_size on 4 GPUs"),
    "schedule.unlabelled_batch": (2 * 4, "configs/pascal.yaml: batch_size on 4 GPUs"),
    "schedule.steps": (80 * (-(-10_490 // 4) // 2), "configs/pascal.yaml: epochs"),
}


@pytest.mark.parametrize("path", OF_V1)
def test_the_preset_of_unimatch_has_its_published_values(path: str) -> None:
    value, source = OF_V1[path]
    assert settings("voc_unimatch_92")[path] == value, source
