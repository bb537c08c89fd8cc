"""Samplers to be compared, and one photo restored as ``sample.py`` would write it, timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mrdiff.diffusion.path import GaussianPath
from mrdiff.photo import composite, like_original, to_rgb, to_uint8
from mrdiff.restoration.restorer import Judged, Restorer
from mrdiff.solvers.presets import make_sampler
from mrdiff.solvers.run import PathError, Sampler
from mrdiff.solvers.timegrid import Grid

__all__ = ["Restored", "restore_one", "samplers_at"]


class Restored(NamedTuple):
    """RGB ``[3, H, W]`` as an 8-bit file holds it, the seconds it took, and the task it had."""

    image: Tensor
    seconds: float
    judged: Judged | None


def samplers_at(
    nfes: Sequence[int],
    process: GaussianPath,
    spec: str | Mapping[str, Any],
    *,
    grid: Grid | None = None,
    temperature: float | None = None,
    left_out: dict[str, None],
) -> Iterator[Sampler]:
    """A sampler at each NFE, but for what does not suit the path: why is ``left_out``.

    Raises:
        ValueError: options that no sampler has.
    """
    for nfe in nfes:
        sampler = make_sampler(spec, nfe=nfe, grid=grid, temperature=temperature)
        try:
            sampler.check(process)
        except PathError as error:
            left_out[str(error)] = None
            continue
        yield sampler


def restore_one(
    restorer: Restorer,
    lq: Tensor,
    name: str,
    *,
    mask: Tensor | None = None,
    on_call: Callable[[], None],
) -> Restored:
    """Restore a photo ``[C, H, W]`` in [0, 1] by the noise of its name.

    ``mask`` ``[1, H, W]`` is 1 where it is intact and 0 in holes.

    Raises:
        MemoryError: not even the smallest tiles fit.
    """
    judged = list[Judged]()
    start = time.perf_counter()
    restored = restorer.restore(
        to_rgb(lq)[None],
        [name],
        mask=None if mask is None else mask[None],
        callback=lambda *_: on_call(),
        on_task=judged.extend,
    )
    seconds = time.perf_counter() - start
    image = like_original(restored[0], lq)
    # What is not a number stays it, and so do its scores.
    saved = torch.where(image.isfinite(), to_uint8(image).float() / 255, torch.nan)
    return Restored(composite(saved), seconds, judged[0] if judged else None)
