"""The least time that a device needs for a piece of work, by its ceilings.

Operators count one by one, as eager torch runs them: each reads its inputs and writes its outputs once, and computes no
faster than a matrix product. A compiler that fuses operators may be faster than that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainers.cost import FORMULAS


class Roofline(TorchDispatchMode):
    """A context that counts the operators within, and the time that they must take."""

    def __init__(self, flops: Mapping[str, float], bytes_per_s: float, float32: str = "float32") -> None:
        """Begin to count.

        Args:
            flops: operations a second by precision: `bfloat16`, `float32`, and perhaps `tf32`.
            bytes_per_s: of memory.
            float32: the precision in which products of float32 numbers are computed.
        """
        super().__init__()
        self._flops_per_s, self._bytes_per_s, self._float32 = flops, bytes_per_s, float32
        self.flops = self.bytes = self.operators = 0
        self.seconds = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        moved = bytes_moved(func, args, kwargs, out)
        if moved:
            formula = FORMULAS.get(func._overloadpacket)
            flops = formula(*args, **kwargs, out_val=out) if formula else 0
            self.flops, self.bytes, self.operators = self.flops + flops, self.bytes + moved, self.operators + 1
            self.seconds += max(flops / self._peak(out), moved / self._bytes_per_s)
        return out

    def _peak(self, out: Any) -> float:
        first = next(iter(_tensors(out)), None)
        reduced = first is not None and first.dtype == torch.bfloat16
        return self._flops_per_s["bfloat16" if reduced else self._float32]


def bytes_moved(func: Any, args: Any, kwargs: Any, out: Any) -> int:
    """Return the bytes that an operator reads and writes; none for views and for memory that is only handed out."""
    given, made = _tensors((args, kwargs)), _tensors(out)
    if not func._schema.is_mutable:
        known = {one.untyped_storage()._cdata for one in given}
        if all(one.untyped_storage()._cdata in known for one in made) or "empty" in func._schema.name:
            return 0
    elif not made:  # in place on lists, as an optimizer does
        named = zip(func._schema.arguments, args, strict=False)
        made = _tensors([value for argument, value in named if argument.alias_info and argument.alias_info.is_write])
    return _size(given) + _size(made)


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _size(tensors: Iterable[Tensor]) -> int:
    """Return bytes; what is expanded counts once."""
    return sum(min(one.numel() * one.element_size(), one.untyped_storage().nbytes()) for one in tensors)
