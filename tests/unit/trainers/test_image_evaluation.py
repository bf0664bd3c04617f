"""Confusion matrices image by image: their sum is the evaluation's, and they come back from a file as they went."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from reference.tiny import tiny_config
from sklearn.metrics import confusion_matrix as sklearn_confusion

from trainers.config import TrainConfig
from trainers.data.source import padded_samples
from trainers.data.splits import open_splits
from trainers.errors import DataError
from trainers.evaluate import confusion_matrix
from trainers.image_evaluation import (
    ImageEvaluation,
    evaluate_images,
    folder_source,
    load_image_evaluation,
    save_image_evaluation,
)
from trainers.local_run import LocalRun
from trainers.models.served import Segmenter


class SizesMixed:
    """Images of several sizes, in no order."""

    names = tuple(f"image-{index}" for index in range(7))
    sizes = ((32, 32), (20, 48), (32, 32), (24, 24), (20, 48), (32, 32), (16, 40))

    def __len__(self) -> int:
        return len(self.names)

    def fetch(self, indices):
        def one(index):
            draw = torch.Generator().manual_seed(index)
            size = self.sizes[index]
            labels = torch.randint(0, 12, size, generator=draw)
            return (
                torch.randint(0, 256, (3, *size), generator=draw, dtype=torch.uint8),
                torch.where(labels == 11, 255, labels).to(torch.uint8),
            )

        return padded_samples([one(index) for index in indices])


def random_segmenter(mode: str) -> Segmenter:
    torch.manual_seed(3)
    model = Segmenter(tiny_config({"evaluation.mode": mode, "evaluation.window": [24, 24], "evaluation.batch": 3}))
    for parameter in model.network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture(scope="module", params=["whole", "sliding"])
def segmenter(request: pytest.FixtureRequest) -> Segmenter:
    return random_segmenter(request.param)


def test_the_images_sum_to_the_confusion_matrix_exactly(segmenter: Segmenter) -> None:
    source, config = SizesMixed(), segmenter.config
    expected = confusion_matrix(segmenter.network, source, config, LocalRun(device=torch.device("cpu")))
    evaluation = evaluate_images(segmenter, source)
    np.testing.assert_array_equal(evaluation.total, expected.numpy())
    assert evaluation.confusion.dtype == np.int64


def test_each_matrix_is_that_of_the_image_of_its_name(segmenter: Segmenter) -> None:
    source = SizesMixed()
    evaluation = evaluate_images(segmenter, source)
    assert evaluation.names == source.names
    for index, matrix in enumerate(evaluation.confusion):
        alone = _Only(source, index)
        np.testing.assert_array_equal(matrix, evaluate_images(segmenter, alone).confusion[0])
        labelled = source.fetch([index]).labels
        assert matrix.sum() == (labelled != 255).sum()


class _Only:
    def __init__(self, source: SizesMixed, index: int) -> None:
        self.source, self.index, self.names = source, index, (source.names[index],)

    def __len__(self) -> int:
        return 1

    def fetch(self, indices):
        return self.source.fetch([self.index for _ in indices])


def test_progress_is_told_of_every_image(segmenter: Segmenter) -> None:
    counts: list[int] = []
    evaluate_images(segmenter, SizesMixed(), counts.append)
    assert sum(counts) == 7


@pytest.fixture
def made_up() -> ImageEvaluation:
    draw = np.random.default_rng(0)
    confusion = draw.integers(0, 50, (5, 4, 4))
    confusion[:, 3] = confusion[:, :, 3] = 0  # a class that does not occur
    return ImageEvaluation(tuple("abcde"), ("sky", "road", "ü", "none"), confusion)


def test_scores_follow_from_the_counts(made_up: ImageEvaluation) -> None:
    total = made_up.confusion.sum(0)[:3, :3]
    hit, truth, predicted = total.diagonal(), total.sum(1), total.sum(0)
    np.testing.assert_allclose(made_up.iou[:3], hit / (truth + predicted - hit))
    np.testing.assert_allclose(made_up.recall[:3], hit / truth)
    np.testing.assert_allclose(made_up.precision[:3], hit / predicted)
    assert np.isnan([made_up.iou[3], made_up.recall[3], made_up.precision[3]]).all()
    assert made_up.miou == pytest.approx(made_up.iou[:3].mean())
    assert made_up.pixel_accuracy == pytest.approx(hit.sum() / total.sum())


def test_without_a_labelled_pixel_all_shares_are_zero() -> None:
    empty = ImageEvaluation(("a",), ("x", "y"), np.zeros((1, 2, 2), np.int64))
    assert (empty.miou, empty.pixel_accuracy) == (0.0, 0.0)


def test_a_file_gives_back_what_was_put_in(made_up: ImageEvaluation, tmp_path: Path) -> None:
    save_image_evaluation(tmp_path / "new" / "val.npz", made_up)
    back = load_image_evaluation(tmp_path / "new" / "val.npz")
    assert (back.names, back.classes) == (made_up.names, made_up.classes)
    np.testing.assert_array_equal(back.confusion, made_up.confusion)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["val.npz"]


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_another_file_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "val.npz"
    if content is None:
        np.savez(path, names=np.array(["a"]), classes=np.array(["x"]), confusion=np.zeros((2, 1, 1), np.int64))
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match="must hold the confusion matrices of an evaluation"):
        load_image_evaluation(path)


def as_folder(config: TrainConfig, folder: Path) -> Path:
    """Write the dev scenes as files, magnified twice."""
    source = open_splits(config.data).dev
    samples = source.fetch(range(len(source)))
    for name, image, label in zip(source.names, samples.images, samples.labels, strict=True):
        for part, values in (("images", image.permute(1, 2, 0).numpy()), ("masks", label.numpy())):
            (folder / part).mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(values)
            picture.resize((64, 64), Image.Resampling.NEAREST).save(folder / part / f"{name}.png")
    return folder


def test_a_folder_is_read_at_the_size_that_the_config_stores(tmp_path: Path) -> None:
    config = tiny_config()
    source = folder_source(config, as_folder(config, tmp_path / "mine"))
    assert source.fetch([0]).images.shape == (1, 3, 32, 32)
    np.testing.assert_array_equal(source.fetch([0]).labels, open_splits(config.data).dev.fetch([0]).labels)


def test_an_image_without_a_mask_is_refused(tmp_path: Path) -> None:
    folder = as_folder(tiny_config(), tmp_path / "mine")
    next((folder / "masks").iterdir()).unlink()
    with pytest.raises(DataError, match="every evaluated image must have a mask"):
        folder_source(tiny_config(), folder)


def test_a_matrix_is_that_of_scikit_learn() -> None:
    model, samples = random_segmenter("whole"), SizesMixed().fetch([0])
    predicted = model(samples.images / 255.0).argmax(1).flatten().numpy()
    truth = samples.labels.flatten().numpy()
    expected = sklearn_confusion(truth[truth != 255], predicted[truth != 255], labels=range(11))
    np.testing.assert_array_equal(evaluate_images(model, _Only(SizesMixed(), 0)).confusion[0], expected)
