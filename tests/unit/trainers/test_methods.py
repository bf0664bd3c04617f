"""Methods are settings of one step; each of Table 1 has one more part than the one before."""

from pathlib import Path

import pytest
import torch
from reference.tiny import tiny_config, whole_step

import harness
from harness.experiment import CssExperiment
from trainers.css.prototypes import Prototypes
from trainers.data.splits import open_splits
from trainers.errors import ConfigError
from trainers.loader import load_batch
from trainers.local_run import LocalRun
from trainers.methods import METHODS, configured
from trainers.overrides import flatten
from trainers.presets import load_preset
from trainers.state import TrainState
from trainers.step import StepOutput
from trainers.targets import StepContext

K, D = 11, 16
LOSSES = {
    "supervised": {"supervised"},
    "mean_teacher": {"supervised", "unsupervised"},
    "cutmix": {"supervised", "unsupervised"},
    "contrastive": {"supervised", "unsupervised", "contrast"},
    "css_cross": {"supervised", "unsupervised", "contrast"},
    "css_mix": {"supervised", "unsupervised", "contrast"},
    "css_mix_released": {"supervised", "unsupervised", "contrast"},
    "reco": {"supervised", "unsupervised", "contrast"},
    "prcl": {"supervised", "unsupervised", "contrast"},
    "fixmatch": {"supervised", "unsupervised"},
    "unimatch": {"supervised", "unsupervised", "unsupervised_second", "unsupervised_third"},
    "unimatch_v2": {"supervised", "unsupervised", "unsupervised_second"},
    "pixcon": {"supervised", "unsupervised", "unsupervised_second", "bank"},
    "u2pl": {"supervised", "unsupervised", "contrast"},
    "cps": {"supervised", "unsupervised"},
    "cps_cutmix": {"supervised", "unsupervised"},
    "adversarial": {"supervised", "unsupervised", "adversarial", "adversarial_unlabelled", "discriminator"},
    "unimatch_css": {"supervised", "unsupervised", "unsupervised_second", "contrast"},
}


def step_of(method: str) -> StepOutput:
    config = configured(tiny_config({"thresholds.delta_u": 0.0}), {"method": method})
    state = TrainState(config, LocalRun(device=torch.device("cpu")))
    batch = load_batch(open_splits(config.data), config, StepContext(config.seed, 10), torch.device("cpu"))
    context, prototypes = StepContext(config.seed, 10), Prototypes.empty(K, D)
    return whole_step(state.student, state.teacher, prototypes, batch, config, context, state.judging)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_has_the_losses_of_its_row(method: str) -> None:
    assert step_of(method).losses.keys() == LOSSES[method]


@pytest.mark.parametrize("method", METHODS)
def test_prototypes_are_made_where_a_loss_or_a_label_reads_them(method: str) -> None:
    assert step_of(method).prototypes.seen.any() == ("contrast" in LOSSES[method])


@pytest.mark.parametrize("preset", ["digits_css", "camvid_css", "camvid_two_drives"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_leaves_all_but_its_own_settings(preset: str, method: str) -> None:
    base = load_preset(preset)
    before, after = flatten(base.model_dump()), flatten(configured(base, {"method": method}).model_dump())
    assert {path for path in before if before[path] != after[path]} <= METHODS[method].keys()


def test_mean_teacher_and_cutmix_differ_in_mixing_alone() -> None:
    different = {path for path in METHODS["cutmix"] if METHODS["cutmix"][path] != METHODS["mean_teacher"][path]}
    assert different == {"augment.strong.mix"}


def test_an_unknown_method_is_answered_with_a_near_one() -> None:
    with pytest.raises(ConfigError, match=r"got 'css_mx': did you mean css_mix\?"):
        configured(load_preset("digits_css"), {"method": "css_mx"})


def test_a_method_that_would_read_no_unlabelled_image_is_refused() -> None:
    with pytest.raises(ConfigError, match="method cutmix must have a loss on unlabelled images"):
        configured(load_preset("digits_supervised"), {"method": "cutmix"})
    assert configured(load_preset("digits_supervised"), {"method": "adversarial"}).uses_unlabelled
    assert not configured(load_preset("digits_css"), {"method": "supervised"}).uses_unlabelled


def test_an_ablation_refuses_such_a_method(tmp_path: Path) -> None:
    plan = {"base": {}, "labels by a teacher": {"method": "cutmix"}}
    with pytest.raises(ConfigError, match="method cutmix must have a loss on unlabelled images"):
        harness.ablate("digits_supervised", plan=plan, dry_run=True, storage=tmp_path)
    harness.ablate("digits_css", plan=plan, dry_run=True, storage=tmp_path)


def test_a_config_file_and_a_draw_that_name_such_a_method_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("preset: digits_supervised\nmethod: cutmix\n")
    with pytest.raises(ConfigError, match="method cutmix must have a loss on unlabelled images"):
        CssExperiment.of(str(file))
    with pytest.raises(ConfigError, match="method cutmix must have a loss on unlabelled images"):
        CssExperiment.of("digits_supervised").configure({"method": "cutmix"})
    given = {"method": "cutmix", "loss.lambda_u": 1.5}
    assert CssExperiment.of("digits_supervised", given).base.uses_unlabelled
    assert CssExperiment.of("digits_supervised").configure(given).uses_unlabelled
