"""Define faults of what ranks contribute to collectives, and of what they receive."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ...core.collectives import COLLECTIVE, POINT_TO_POINT, REDUCING, is_collective
from ...core.faults import is_drawn, register
from ...core.sites import Key, Visit
from ...core.validation import format_value
from ...errors import BadArgument, PayloadMismatch
from ..models.bits import Cells, flip, width
from .rank_fault import RankFault, note_collective
from .reductions import reduction

if TYPE_CHECKING:
    import torch

__all__ = [
    "CorruptContribution",
    "CorruptResult",
    "Desync",
    "DuplicatedContribution",
    "LostContribution",
    "PartialGradient",
]
LAYER = "Ranks"

MAX_SHOWN = 8
"""The journal names this many flipped bits."""
_UNCHANGED_BY_COPIES = ("max", "min", "band", "bor")
"""The reductions for which a second copy of a contribution makes no difference."""


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class ContributionFault(RankFault):
    """A fault of what one rank gives to a reducing collective: all_reduce, reduce, reduce_scatter.

    ``at`` counts the reducing collectives of that rank.
    """

    site = COLLECTIVE

    @property
    def key(self) -> Key:
        """Count reducing collectives alone."""
        return REDUCING

    def possible(self, visit: Visit) -> bool:
        """Return False for a collective without elements."""
        return any(tensor.numel() for tensor in visit.payload)

    def apply(self, visit: Visit) -> list[torch.Tensor] | None:
        """Let the others receive a different contribution."""
        import torch

        given: Sequence[torch.Tensor] = visit.payload
        for tensor in given:
            if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
                raise PayloadMismatch(
                    f"{self.name}: {_shown(tensor)} in {visit.attributes['op']} has no elements "
                    f"that could be changed. Choose a different collective with at= or where="
                )
        with torch.no_grad():
            changed = self.change(visit, given)
        if changed is None or all(map(_same, given, changed)):
            visit.skip()  # for example, the rank contributed zeros
            return None
        note_collective(visit)
        return list(changed)

    def change(self, visit: Visit, given: Sequence[torch.Tensor]) -> Sequence[torch.Tensor] | None:
        """Return the tensors that arrive, as new ones. None if nothing changes."""
        raise NotImplementedError


def _shown(tensor: torch.Tensor) -> str:
    return f"a tensor {list(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return True if two tensors are equal. NaN equals itself."""
    import torch

    if one is other or torch.equal(one, other):
        return True
    if not one.is_floating_point():
        return False
    old, new = (part.reshape(-1).view(torch.uint8) for part in (one, other))
    return bool(torch.equal(old, new))


@register
class LostContribution(ContributionFault):
    """The contribution of one rank to a collective is lost: zeros arrive instead.

    The collective ends without an error, so all ranks get the same wrong result.

    Imitates: a bug in a collective library that reads a buffer before it is filled, a stream that
    is not synchronized, a rank whose gradients are reset too early.

    Fidelity: zeros arrive for every kind of reduction, so a product becomes zero. The rank's own
    buffer stays as it is, unless the result is written there (all_reduce).

    Source: asynchronous collectives and streams,
    https://pytorch.org/docs/stable/distributed.html#synchronous-and-asynchronous-collective-operations

    Example: @chaos.lost_contribution(rank=1, at=3)
    """

    def change(self, visit: Visit, given: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Give zeros."""
        import torch

        return [torch.zeros_like(tensor) for tensor in given]


@register
class DuplicatedContribution(ContributionFault):
    """The contribution of one rank to a collective counts twice.

    The collective ends without an error, so all ranks get the same wrong result.

    Imitates: a retry in a network or a switch that adds a packet again, an aggregator that receives
    an update twice, gradients that are accumulated over a step too many.

    Fidelity: for a sum or an average, the rank gives twice its values. Integers wrap around. For a
    product, it gives their squares. A second copy changes neither a maximum nor a minimum, so the
    fault does not strike there.

    Source: A. Sapio et al., Scaling Distributed Machine Learning with In-Network Aggregation, NSDI
    2021 (retransmitted packets)

    Example: @chaos.duplicated_contribution(rank=1, at=3)
    """

    def change(self, visit: Visit, given: Sequence[torch.Tensor]) -> Sequence[torch.Tensor] | None:
        """Give the values twice."""
        import torch

        kind = reduction()
        if kind in _UNCHANGED_BY_COPIES:
            return None
        if kind == "bxor":
            return [torch.zeros_like(tensor) for tensor in given]
        if kind == "product":
            return [tensor * tensor for tensor in given]
        return [tensor if tensor.dtype == torch.bool else _twice(tensor) for tensor in given]


def _twice(tensor: torch.Tensor) -> torch.Tensor:
    """Return twice the values. Small floats have no arithmetic of their own."""
    if tensor.is_floating_point() and tensor.element_size() == 1:
        return (tensor.float() * 2).to(tensor.dtype)
    return tensor * 2


@register
class PartialGradient(ContributionFault):
    """Only a part of what one rank contributes to a collective arrives. Zeros replace the rest.

    Args:
        fraction: The share of the elements that arrives, above 0 and below 1. The first ones
            arrive. If the collectives are searched and it is not given, 0.5, 0.9 and 0.1 are tried.

    Imitates: a lost chunk of a ring all-reduce, a transport that drops late packets on purpose, a
    bucket that is sent before all of its gradients are ready.

    Fidelity: elements are counted through all tensors of the collective, in the order of their
    indices. A real transport loses whole packets, which can be anywhere.

    Source: J. Xia et al., Rethinking Transport Layer Design for Distributed Machine Learning, APNet
    2019 (training with bounded loss)

    Example: @chaos.partial_gradient(rank=1, fraction=0.5, at=3)
    """

    positions: ClassVar[Mapping[str, tuple[Any, ...]]] = {"fraction": (0.5, 0.9, 0.1)}
    fraction: float = 0.5

    def check(self) -> None:
        """Check the parameters."""
        if not is_drawn(self.fraction) and not 0 < self.fraction < 1:
            raise BadArgument(
                f"{self.name}: fraction must be above 0 and below 1, got "
                f"{format_value(self.fraction)}"
            )

    def change(self, visit: Visit, given: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Give the beginning."""
        import torch

        left = int(self.fraction * sum(tensor.numel() for tensor in given))
        changed = []
        for tensor in given:
            places = torch.arange(tensor.numel(), device=tensor.device).reshape(tensor.shape)
            changed.append(copy := tensor.clone())
            # Small floats have no masked_fill_, and the byte 0 is their zero.
            cells = copy.view(torch.uint8) if copy.element_size() == 1 else copy
            cells.masked_fill_(places >= left, 0)
            left = max(0, left - tensor.numel())
        return changed


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class FlippedBits(ContributionFault):
    """A fault that flips bits of the tensors of a collective."""

    random = True
    positions: ClassVar[Mapping[str, tuple[Any, ...]]] = {"bits": (1, 16)}
    bits: int = 1
    bit: int | None = None

    def check(self) -> None:
        """Check the parameters."""
        if not is_drawn(self.bits) and self.bits < 1:
            raise BadArgument(f"{self.name}: bits must be 1 or more, got {self.bits}")
        if self.bit is not None and not is_drawn(self.bit) and not 0 <= self.bit < 64:
            raise BadArgument(
                f"{self.name}: bit must be the number of a bit (0 to 63; 0 to 31 of float32), got "
                f"{format_value(self.bit)}"
            )

    def drawn(self, seed: int, tensors: Sequence[torch.Tensor]) -> list[tuple[int, int, int]]:
        """Draw the place of the tensor, the element and the bit of each flip."""
        widths = {place: _width(tensor) for place, tensor in enumerate(tensors) if tensor.numel()}
        fitting = [place for place in widths if self.bit is None or self.bit < widths[place]]
        if not fitting:
            raise PayloadMismatch(
                f"{self.name}: found no bit {self.bit or 0} in "
                f"{', '.join(map(_shown, tensors)) or 'no tensor'}"
            )
        cells = Cells([(str(place), _view(tensors[place])) for place in fitting])
        bits = [1 if self.bit is not None else widths[place] for place in fitting]
        there_are = sum(map(operator.mul, bits, (view.numel() for view in cells.tensors)))
        found: dict[tuple[int, int, int], None] = {}
        # A truth value has one bit of eight, so more are drawn than are flipped.
        for index, element, bit in cells.drawn(seed, 8 * there_are, self.bit):
            place = fitting[index]
            found[place, element, bit % widths[place]] = None
            if len(found) == min(self.bits, there_are):
                break
        return list(found)


def _flip(tensors: Sequence[torch.Tensor], drawn: Iterable[tuple[int, int, int]]) -> list[str]:
    """Flip bits in place, and return which."""
    for place, element, bit in drawn:
        flip(_view(tensors[place]), element, bit)
    return [f"bit {bit} of tensor {place}[{element}]" for place, element, bit in drawn][:MAX_SHOWN]


def _view(tensor: torch.Tensor) -> torch.Tensor:
    """Return a view of a tensor whose bits can be flipped."""
    import torch

    if tensor.dtype == torch.bool:
        return tensor.view(torch.uint8)
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _width(tensor: torch.Tensor) -> int:
    """Return the number of bits of an element that can be flipped. A truth value has one."""
    import torch

    return 1 if tensor.dtype == torch.bool else width(_view(tensor))


@register
class CorruptContribution(FlippedBits):
    """One rank sends wrong values to a collective: bits are flipped.

    The collective ends without an error, so all ranks get the same wrong result.

    Args:
        bits: The number of flipped bits. If the collectives are searched and it is not given, 1 and
            16 are tried.
        bit: The bit of the element, 0 is the lowest. In float32, 31 is the sign, and 30 to 23 are
            the exponent. Without it, any bit.

    Imitates: a marginal core or a bad memory cell in one host, a network card that computes a wrong
    sum.

    Fidelity: the values are wrong as they leave the rank. A damage on the way, which gives
    different values to different ranks, is ``corrupt_link``. Truth values have one bit.

    Source: Dixit et al., Silent Data Corruptions at Scale, https://arxiv.org/abs/2102.11245

    Example: @chaos.corrupt_contribution(rank=1, bits=1, bit=30, at=3)
    """

    def change(self, visit: Visit, given: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Flip bits of copies."""
        copies = [tensor.clone() for tensor in given]
        visit.note(flipped=_flip(copies, self.drawn(visit.seed, copies)))
        return copies


@register
class CorruptResult(FlippedBits):
    """One rank receives wrong values from a collective: bits are flipped in its result.

    The others have the right ones, so the ranks have got out of sync.

    Args:
        bits: The number of flipped bits. If the collectives are searched and it is not given, 1 and
            16 are tried.
        bit: The bit of the element, as for ``corrupt_contribution``.

    Imitates: a bad memory cell in the host or on the device that receives, a driver that copies a
    buffer too early.

    Fidelity: the bits flip when the collective is finished, before its caller goes on. An
    asynchronous collective is waited for, so it does not overlap with computation. A rank that
    receives no result (reduce, at other ranks than the root) is not struck.

    Source: Dixit et al., Silent Data Corruptions at Scale, https://arxiv.org/abs/2102.11245

    Example: @chaos.corrupt_result(rank=1, bits=1, bit=30, at=3)
    """

    def possible(self, visit: Visit) -> bool:
        """Return False for a rank that receives nothing."""
        return any(tensor.numel() for tensor in visit.collective.outputs)

    def apply(self, visit: Visit) -> None:
        """Flip bits of the result when it is there."""
        outputs = visit.collective.outputs
        if not any(tensor.numel() for tensor in outputs):
            visit.skip()
            return
        drawn = self.drawn(visit.seed, outputs)
        note_collective(visit)
        visit.after(lambda: visit.record_injection(flipped=_flip(outputs, drawn)))


@register
class Desync(RankFault):
    """One rank skips a collective, or takes part in it twice.

    Its next collective then meets the one before it in the other ranks. If the sizes fit, gloo and
    NCCL combine them without an error.

    Args:
        site: ``"collective"``, or one operation: ``"collective.all_reduce"``. ``at`` counts its
            visits in that rank.
        how: ``"skip"`` or ``"double"``. If the collectives are searched and it is not given, both
            are tried.

    Imitates: a branch that depends on the rank or on its data, a rank with a batch less than the
    others, a retry in one rank alone.

    Fidelity: a skipped collective leaves its result as it was before, and the caller takes it for
    finished. A doubled one runs twice with the same buffers. Point-to-point operations are left
    out, unless the site names them.

    Source: https://pytorch.org/docs/stable/distributed.html#debugging-torch-distributed-applications

    Example: @chaos.desync(rank=1, how="skip", at=3)
    """

    positions: ClassVar[Mapping[str, tuple[Any, ...]]] = {"how": ("skip", "double")}
    site: str = COLLECTIVE  # type: ignore[misc]  # this fault has the site as a parameter
    how: Literal["skip", "double"] = "skip"

    def check(self) -> None:
        """Check the parameters."""
        if not is_drawn(self.site) and not is_collective(self.site):
            raise BadArgument(
                f"{self.name}: site must be 'collective' or 'collective.<op>', got "
                f"{format_value(self.site)}"
            )

    def possible(self, visit: Visit) -> bool:
        """Return False if no other rank takes part, and for a message between two ranks."""
        at = visit.attributes
        meant = self.site != COLLECTIVE or at["op"] not in POINT_TO_POINT
        return meant and len(at["group"]) > 1

    def apply(self, visit: Visit) -> None:
        """Skip it or double it."""
        if not self.possible(visit):
            visit.skip()
            return
        note_collective(visit)
        visit.note(launches=0 if self.how == "skip" else 2)
        if self.how == "skip":
            visit.collective.skip()
        else:
            visit.collective.double()
