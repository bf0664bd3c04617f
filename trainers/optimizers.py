"""torch's optimizers, none of whose calls imports torch's compiler.

torch 2.14 wraps these methods for code that it compiles, and the wrappers import `torch._dynamo` at the first call: a
second and 150 MB of every process that trains. Here an optimizer's step is never part of what is compiled.
"""

from __future__ import annotations

from inspect import unwrap

import torch


class _Uncompiled(torch.optim.Optimizer):
    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = unwrap(torch.optim.Optimizer.load_state_dict)


class SGD(_Uncompiled, torch.optim.SGD):
    """`torch.optim.SGD`."""

    step = torch.no_grad()(unwrap(torch.optim.SGD.step))


class AdamW(_Uncompiled, torch.optim.AdamW):
    """`torch.optim.AdamW`."""

    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))
