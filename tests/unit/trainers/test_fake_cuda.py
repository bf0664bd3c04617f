"""On CUDA the host neither waits in a step nor sends much: the loader and the step on fake tensors of a GPU.

Fake tensors have shapes and devices and no values, so there is a GPU on every machine. Autograd does not run on them.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from reference.tiny import tiny_config
from test_step import VARIANTS, describe
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainers import loader, step
from trainers.adversary import make_discriminator
from trainers.config import LossConfig, TrainConfig
from trainers.cost import _replace_by_fakes
from trainers.css.contrast import build_pool, contrastive_loss
from trainers.css.prototypes import Prototypes
from trainers.css.supervision import supervised_loss
from trainers.data.source import Samples
from trainers.methods import METHODS
from trainers.models.build import make_network
from trainers.state import make_teacher, update_teacher
from trainers.step import StepOutput, css_step
from trainers.targets import StepContext

CUDA, CONTEXT = torch.device("cuda"), StepContext(0, 10)


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations, and tells those apart that take a tensor of one device to another."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ran: Counter[str] = Counter()
        self.sent: list[list[int]] = []
        """Shapes of what went from page-locked memory without a wait."""
        self.waited: list[str] = []
        """All others."""
        self._pinned: list[Tensor] = []

    def pin(self, tensor: Tensor) -> Tensor:
        """Take a tensor of the host for one in page-locked memory."""
        self._pinned.append(tensor)
        return tensor

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        out = func(*args, **options)
        self.ran[func.overloadpacket.__name__] += 1
        tensors = [leaf for leaf in tree_leaves((args, out)) if isinstance(leaf, Tensor)]
        if len({tensor.device.type for tensor in tensors}) > 1:
            if options.get("non_blocking") and any(tensors[0] is pinned for pinned in self._pinned):
                self.sent.append(list(tensors[0].shape))
            else:
                self.waited.append(f"{func} {list(tensors[0].shape)}")
        return out


OnGpu = Callable[[], Any]


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> OnGpu:
    """Return a context whose tensors are fake and whose operations are counted; there seems to be a GPU."""
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(step, "generator", lambda *_, **__: None)  # one of CUDA needs a GPU

    @contextmanager
    def context() -> Iterator[Operations]:
        operations = Operations()
        monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: operations.pin(tensor))
        with FakeTensorMode(), operations:
            yield operations

    return context


@pytest.fixture
def _images_differ_in_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Samples, "padded", True)  # which is read from the sizes; fake ones have no values


def networks(config: TrainConfig) -> tuple[nn.Module, nn.Module]:
    """Student and teacher with neither device nor values."""
    with torch.device("meta"):
        student = make_network(config.model, config.num_classes, CUDA)
    student.to(memory_format=torch.channels_last)
    return student, make_teacher(student)


def stored(config: TrainConfig) -> loader._Stored:
    """A batch as it is read."""

    def samples(count: int) -> Samples:
        images = torch.zeros(count, 3, 32, 32, dtype=torch.uint8)
        return Samples(images, images[:, 0], torch.zeros(count, 2, dtype=torch.int64))

    unlabelled = samples(config.schedule.unlabelled_batch) if config.uses_unlabelled else None
    return loader._Stored(samples(config.schedule.labelled_batch), unlabelled)


def take_step(config: TrainConfig, student: nn.Module, teacher: nn.Module) -> list[StepOutput]:
    """A step on a fake GPU without its backward, from stored images to losses."""
    discriminator = make_discriminator(config)
    with CUDA:
        for network in filter(None, (student, teacher, discriminator)):
            _replace_by_fakes(network)
    batch = loader._to_batch(stored(config), config, CONTEXT, CUDA)
    prototypes = Prototypes.empty(config.num_classes, config.model.representation_dim, CUDA)
    return list(css_step(student, teacher, prototypes, batch, config, CONTEXT, None, discriminator))


@pytest.mark.usefixtures("_images_differ_in_size")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("overrides", VARIANTS, ids=describe)
def test_a_step_on_a_gpu_mixes_no_devices_and_waits_for_no_copy(
    overrides: Mapping[str, Any], precision: str, on_gpu: OnGpu
) -> None:
    config = tiny_config({**overrides, "compute.precision": precision})
    both = networks(config)
    with on_gpu() as operations:
        parts = take_step(config, *both)
    assert operations.waited == []
    values = [value for part in parts for value in (*part.losses.values(), *part.statistics.values())]
    assert {(value.device.type, value.dtype) for value in values} == {("cuda", torch.float32)}


@pytest.mark.parametrize("line", ['torch.ones(2, device="cuda")[0].cpu()', 'torch.tensor([1.0], device="cuda")'])
def test_fake_tensors_notice_a_copy_that_waits(line: str, on_gpu: OnGpu) -> None:
    with on_gpu() as operations:
        eval(line)  # noqa: S307
    assert len(operations.waited) == 1


@pytest.mark.usefixtures("_images_differ_in_size")
def test_a_step_sends_its_images_and_sizes_and_labels_and_three_times_its_draws(on_gpu: OnGpu) -> None:
    config = tiny_config({"loss.class_weights": (2.0,) * 11})
    both = networks(config)
    with on_gpu() as operations:
        take_step(config, *both)
    images, sizes, labels = [4, 3, 32, 32], [4, 2], [4, 32, 32]
    weak, strong = [4 * 6], [4 * (6 + 5 + 2 + 5 + 255 + 1)]
    expected = [labels, images, sizes, weak, images, sizes, weak, [11], strong]
    assert operations.sent == expected


@pytest.mark.usefixtures("_images_differ_in_size")
def test_unreliable_pixels_are_chosen_without_sending_anything(on_gpu: OnGpu) -> None:
    sent = []
    for settings in (METHODS["u2pl"], {**METHODS["u2pl"], "thresholds.kind": "fixed", "loss.contrast": "hard"}):
        config = tiny_config(settings)
        both = networks(config)
        with on_gpu() as operations:
            take_step(config, *both)
        sent.append(operations.sent)
    assert sent[0] == sent[1]


def test_on_a_gpu_no_loss_is_summed_by_a_single_block(on_gpu: OnGpu) -> None:
    with on_gpu() as operations:
        logits, label = torch.zeros(2, 5, 8, 8, device=CUDA), torch.zeros(2, 8, 8, device=CUDA, dtype=torch.int64)
        total = supervised_loss(logits, label).total
    assert total.shape == ()
    assert operations.ran["sum"] == 2  # of the loss and of its divisor


@pytest.mark.parametrize(("device", "products"), [("cpu", 151), ("cuda", 2 * 5 + 1)])
def test_on_a_gpu_negatives_are_looked_up_in_large_blocks(device: str, products: int, on_gpu: OnGpu) -> None:
    config = LossConfig(queries=64, negatives=512, negative_groups=8)
    with on_gpu() as operations, torch.device(device):
        label = torch.zeros(1, 16, 16, dtype=torch.int64)
        pool = build_pool(label, label == 0, 150)
        prototypes = Prototypes(torch.zeros(150, 256), torch.ones(150, dtype=torch.bool))
        contrastive_loss(torch.zeros(1, 256, 16, 16), pool, prototypes, pool.hard, config, None)  # type: ignore[arg-type]
    assert operations.ran["bmm"] == products


def test_a_teacher_takes_over_all_counters_at_once(on_gpu: OnGpu) -> None:
    student, teacher = networks(tiny_config())
    with on_gpu() as operations:
        with CUDA:
            _replace_by_fakes(student)
            _replace_by_fakes(teacher)
        operations.ran.clear()
        update_teacher(teacher, student, 0.5)
    assert operations.ran == {"_foreach_lerp_": 1, "_foreach_copy_": 1}
