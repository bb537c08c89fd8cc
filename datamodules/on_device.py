"""Training batches that are degraded where they are trained on.

Workers then send clean patches, as bytes, with what was drawn for them. A patch becomes the same
sample on either road: bit for bit on the CPU, where each is degraded by itself as in a worker; to
the last bits of floating point, and so to a grey level, elsewhere, where many are at once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import chain
from math import prod
from typing import Any, NamedTuple

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from datamodules.batches import Collate, size_of, unequal
from datamodules.datasets.base import Sample
from datamodules.datasets.degraded import Patch, degraded_pieces
from datamodules.degradations import Degradation
from datamodules.errors import DataError


class Pack(Collate):
    """Makes of patches, and of samples that could not be left so, what :func:`completed` takes.

    ``together`` says whether patches that are alike are degraded together.
    """

    def __init__(self, role: str, *, together: bool) -> None:
        super().__init__(role)
        self.together = together

    def __call__(self, samples: Sequence[Sample | Patch]) -> Any:
        """Groups, and where in them the samples of the batch are; DataError as for Collate."""
        sizes = [_named_size(sample) for sample in samples]
        for named in sizes:
            if named[1] != sizes[0][1]:
                raise DataError(unequal(self.role, sizes[0], named))
        alike: dict[Any, list[int]] = {}
        for place, sample in enumerate(samples):
            alike.setdefault(self._kind(place, sample), []).append(place)
        places = torch.tensor([*chain.from_iterable(alike.values())])
        groups = [self._group([samples[i] for i in group]) for group in alike.values()]
        names = [name for name, _ in sizes]
        return {"name": names, **_flattened({"groups": groups, "order": places.argsort()})}

    def _kind(self, place: int, sample: Sample | Patch) -> Any:
        if not isinstance(sample, Patch):
            return None
        return (sample.task, sample.clean.shape) if self.together else place

    def _group(self, alike: list[Any]) -> Any:
        if not isinstance(first := alike[0], Patch):
            return super().__call__(alike)
        return {
            "clean": _as_bytes(torch.stack([patch.clean for patch in alike])),
            "draws": first.degradation.pack([patch.draws for patch in alike]),
            "task": first.task,
            "size": first.size,
        }


def _named_size(sample: Sample | Patch) -> tuple[str, tuple[int, int]]:
    if not isinstance(sample, Patch):
        return sample["name"], size_of(sample["lq"])
    side = sample.size
    return sample.name, size_of(sample.clean) if side is None else (side, side)


def _as_bytes(images: Tensor) -> Tensor:
    """Images as uint8, unless they have more than its levels."""
    levels = images if images.dtype == torch.uint8 else images.mul(255).round().byte()
    same = levels is images or torch.equal(levels.float().div(255.0), images)
    return levels if same else images


class _Slot(NamedTuple):
    """Where a tensor lies in the one of its type."""

    dtype: torch.dtype
    start: int
    shape: list[int]


def _flattened(tree: Any) -> dict[str, Any]:
    """All tensors of one type in one: a worker would send, and a device get, hundreds of them."""
    parts: dict[torch.dtype, list[Tensor]] = defaultdict(list)
    lengths: Counter[torch.dtype] = Counter()

    def put(tensor: Tensor) -> _Slot:
        kind = tensor.dtype
        slot = _Slot(kind, lengths[kind], [*tensor.shape])
        parts[kind].append(tensor.flatten())
        lengths[kind] += tensor.numel()
        return slot

    slots = apply_to_collection(tree, Tensor, put)
    return {"slots": slots, "tensors": [torch.cat(each) for each in parts.values()]}


def _unflattened(slots: Any, tensors: list[Tensor]) -> Any:
    whole = {tensor.dtype: tensor for tensor in tensors}

    def get(slot: _Slot) -> Tensor:
        return whole[slot.dtype].narrow(0, slot.start, prod(slot.shape)).view(slot.shape)

    return apply_to_collection(slots, _Slot, get)


def completed(batch: Any, degradation: Degradation | None) -> Any:
    """The batch of samples that :class:`Pack` packed, on the device where it is; others stay.

    ``degradation`` is that of the dataset.
    """
    if degradation is None or not (isinstance(batch, dict) and "slots" in batch):
        return batch
    packed = _unflattened(batch["slots"], batch["tensors"])
    groups = [_degraded(group, degradation) for group in packed["groups"]]
    order, keys = packed["order"], [key for key in groups[0] if key != "name"]
    joined = {key: torch.cat([group[key] for group in groups])[order] for key in keys}
    return {**joined, "name": batch["name"]}


def _degraded(group: dict[str, Any], degradation: Degradation) -> dict[str, Any]:
    """A group as a batch: one that is made of samples is one already."""
    if "draws" not in group:
        return group
    task, clean = group["task"], group["clean"]
    gt, lq, mask = degraded_pieces(
        clean,
        degradation.of_task(task),
        group["draws"],
        size=group["size"],
        masked=degradation.cuts_holes,
    )
    batch = {"lq": lq, "gt": gt}
    if mask is not None:
        batch["mask"] = mask
    if task is not None:
        batch["degradation"] = torch.full((len(clean),), task, device=clean.device)
    return batch
