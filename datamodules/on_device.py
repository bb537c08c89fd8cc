"""Training batches that are degraded where they are trained on.

Workers then send clean patches, as bytes, with what was drawn for them. A patch becomes the same
sample on either road: bit for bit on the CPU, where each is degraded by itself as in a worker; to
the last bits of floating point, and so to a grey level, elsewhere, where many are at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.nn import functional

from datamodules.batches import Collate, size_of, unequal
from datamodules.checks import blaming, class_path
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
        return {"name": names, **_as_one({"groups": groups, "order": places.argsort()})}

    def _kind(self, place: int, sample: Sample | Patch) -> Any:
        if not isinstance(sample, Patch):
            return None
        alike = sample.task, sample.clean.shape, sample.clean.dtype
        return alike if self.together else place

    def _group(self, alike: list[Any]) -> Any:
        if not isinstance(first := alike[0], Patch):
            return super().__call__(alike)
        with blaming(class_path(first.degradation)):
            draws = first.degradation.pack([patch.draws for patch in alike])
        return {
            "clean": _as_bytes(torch.stack([patch.clean for patch in alike])),
            "draws": draws,
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
    """Where the bytes of a tensor are."""

    start: int
    length: int
    dtype: torch.dtype
    shape: list[int]


def _as_one(tree: Any) -> dict[str, Any]:
    """All tensors as the bytes of one: a worker would send, and a device get, hundreds of them.

    As bytes they are also left alone by what makes floats of a batch 16 or 64 bits wide.
    """
    parts: list[Tensor] = []
    end = 0

    def put(tensor: Tensor) -> _Slot:
        nonlocal end
        content = tensor.reshape(-1).view(torch.uint8)
        slot = _Slot(end, len(content), tensor.dtype, [*tensor.shape])
        parts.append(functional.pad(content, (0, -len(content) % 8)))  # where any type may begin
        end += len(parts[-1])
        return slot

    return {"slots": apply_to_collection(tree, Tensor, put), "bytes": torch.cat(parts)}


def _apart(batch: dict[str, Any]) -> Any:
    """What :func:`_as_one` was given, on the device where its bytes are."""

    def get(slot: _Slot) -> Tensor:
        content = batch["bytes"].narrow(0, slot.start, slot.length)
        return content.view(slot.dtype).view(slot.shape)

    return apply_to_collection(batch["slots"], _Slot, get)


def completed(batch: Any, degradation: Degradation | None) -> Any:
    """The batch of samples that :class:`Pack` packed, on the device where it is; others stay.

    ``degradation`` is that of the dataset.
    """
    if degradation is None or not (isinstance(batch, dict) and "slots" in batch):
        return batch
    packed = _apart(batch)
    groups = [_degraded(group, degradation) for group in packed["groups"]]
    order, keys = packed["order"], [key for key in groups[0] if key != "name"]
    joined = {key: torch.cat([group[key] for group in groups])[order] for key in keys}
    return {**joined, "name": batch["name"]}


def _degraded(group: dict[str, Any], degradation: Degradation) -> dict[str, Any]:
    """A group as a batch: one that is made of samples is one already."""
    if "draws" not in group:
        return group
    task, clean = group["task"], group["clean"]
    batch = degraded_pieces(
        clean,
        degradation.of_task(task),
        group["draws"],
        size=group["size"],
        masked=degradation.cuts_holes,
    )
    if task is not None:
        batch["degradation"] = torch.full((len(clean),), task, device=clean.device)
    return batch
