"""A trained model in one object: the teacher of a checkpoint, sent as a call and tensors."""

import copy
import io
import pickle
import pickletools
from pathlib import Path

import pytest
import torch
from reference.tiny import differences, tiny_config

from trainers.compute import forward
from trainers.config import TrainConfig
from trainers.errors import DataError
from trainers.local_run import LocalRun
from trainers.loop import train
from trainers.models.served import Segmenter, load_segmenter, read_segmenter
from trainers.overrides import apply_overrides
from trainers.presets import load_preset
from trainers.state import TrainState


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainConfig, Path, TrainState]:
    folder = tmp_path_factory.mktemp("run")
    config = tiny_config({"schedule.steps": 2})
    return config, folder / "latest.pt", train(config, LocalRun(folder))


def test_it_is_the_teacher_with_its_prototypes(trained: tuple[TrainConfig, Path, TrainState]) -> None:
    config, path, state = trained
    segmenter = load_segmenter(config, path)
    assert differences(segmenter.network.state_dict(), state.teacher.state_dict()) == []
    assert differences(segmenter.prototypes._asdict(), state.prototypes._asdict()) == []
    assert (segmenter.step, segmenter.classes) == (2, config.data.classes)


def test_it_is_the_student_where_that_is_scored(tmp_path: Path) -> None:
    config = tiny_config({"schedule.steps": 2, "evaluation.network": "student"})
    state = train(config, LocalRun(tmp_path))
    network = load_segmenter(config, tmp_path / "latest.pt").network
    assert differences(network.state_dict(), state.student.state_dict()) == []
    assert differences(network.state_dict(), state.teacher.state_dict()) != []


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (16, 80)])
def test_logits_have_the_size_of_the_images(
    size: tuple[int, int], trained: tuple[TrainConfig, Path, TrainState]
) -> None:
    config, path, state = trained
    images = torch.rand(2, 3, *size)
    logits = load_segmenter(config, path)(images)
    assert logits.shape == (2, 11, *size)
    coarse = forward(state.teacher, images, config).logits
    expected = torch.nn.functional.interpolate(coarse, size, mode="bilinear", align_corners=True)
    torch.testing.assert_close(logits, expected)


def test_nothing_in_it_is_trained_or_depends_on_the_batch(trained: tuple[TrainConfig, Path, TrainState]) -> None:
    segmenter = load_segmenter(*trained[:2])
    images = torch.rand(3, 3, 32, 32)
    assert not segmenter(images).requires_grad
    torch.testing.assert_close(segmenter(images)[:1], segmenter(images[:1]))


def test_pickled_and_read_it_says_the_same(trained: tuple[TrainConfig, Path, TrainState], tmp_path: Path) -> None:
    segmenter = load_segmenter(*trained[:2])
    torch.save(segmenter, tmp_path / "model.pth")
    back = read_segmenter(tmp_path / "model.pth")
    assert (back.config, back.step) == (segmenter.config, segmenter.step)
    assert differences(back.state_dict(), segmenter.state_dict()) == []
    assert not back.training


def test_its_pickle_names_no_class_of_a_network(trained: tuple[TrainConfig, Path, TrainState]) -> None:
    written = pickle.dumps(load_segmenter(*trained[:2]), protocol=2)
    named = {argument for code, argument, _ in pickletools.genops(written) if code.name == "GLOBAL"}
    assert {name for name in named if name.startswith("trainers")} == {"trainers.models.served restore"}
    assert not any("torch.nn" in name for name in named)


class Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("code of the file ran",)


def test_a_file_that_calls_something_else_is_refused_and_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(Harmful(), tmp_path / "model.pth")
    with pytest.raises(DataError, match="must be one that s4 registered"):
        read_segmenter(tmp_path / "model.pth")
    assert capsys.readouterr().out == ""


def test_a_file_of_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"teacher": torch.zeros(1)}, tmp_path / "model.pth")
    with pytest.raises(DataError, match="must be one that s4 registered, got dict"):
        read_segmenter(tmp_path / "model.pth")


def test_a_copy_is_a_model_of_its_own(trained: tuple[TrainConfig, Path, TrainState]) -> None:
    segmenter = load_segmenter(*trained[:2])
    other = copy.deepcopy(segmenter)
    other.values.add_(1)
    assert differences(other.state_dict(), segmenter.state_dict()) == ["/values"]


def test_another_config_is_refused(trained: tuple[TrainConfig, Path, TrainState]) -> None:
    with pytest.raises(DataError, match="must come from the same config"):
        load_segmenter(apply_overrides(trained[0], {"seed": 1}), trained[1])


def test_a_checkpoint_with_other_tensors_is_refused_in_one_line(
    trained: tuple[TrainConfig, Path, TrainState], tmp_path: Path
) -> None:
    torch.save({"config_hash": trained[0].hash, "step": 1, "teacher": {}}, tmp_path / "old.pt")
    with pytest.raises(DataError, match="a checkpoint must be one of this version") as refusal:
        load_segmenter(trained[0], tmp_path / "old.pt")
    assert "\n" not in str(refusal.value)


def test_making_one_leaves_the_global_generator_as_it_was() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    Segmenter(tiny_config())
    assert torch.equal(torch.get_rng_state(), before)


def test_normalisation_over_ranks_and_weights_that_are_gone_are_no_obstacle() -> None:
    config = apply_overrides(
        load_preset("camvid_css"),
        {"model.norm": "sync_batch", "model.backbone_weights": "gone.pth", "data.root": "/gone"},
    )
    segmenter = Segmenter(config)
    written = io.BytesIO()
    torch.save(segmenter, written)
    assert segmenter(torch.rand(1, 3, 32, 32)).shape == (1, 11, 32, 32)
