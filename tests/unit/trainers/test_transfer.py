"""What goes to the device arrives as it was."""

import torch
from reference.tiny import differences

from trainers.transfer import send, send_together

CPU = torch.device("cpu")


def test_tensors_that_are_sent_together_arrive_bit_by_bit() -> None:
    draws = torch.Generator().manual_seed(0)
    numbers = torch.rand(6, 5, generator=draws)
    tensors = [numbers[:, 0], numbers[2:4, 1:3], numbers[:, 3] < 0.5, torch.tensor([float("inf"), -0.0, 1e-40])]
    assert differences(send_together(tensors, CPU), tensors) == []


def test_a_tensor_that_is_sent_keeps_its_type() -> None:
    labels = torch.tensor([3, 255], dtype=torch.uint8)
    assert differences(send(labels, CPU), labels) == []
