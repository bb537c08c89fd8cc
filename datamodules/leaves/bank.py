"""The bank of dead-leaves pictures: made once, kept in the user's cache, read by memory map.

One safetensors file holds all pictures. Its name carries the format version and a hash of the
parameters; its header carries a checksum, so that a damaged file is made again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import torch
from einops import rearrange
from numpy.typing import NDArray
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.errors import DataError
from datamodules.leaves.look import LOOK, LeafLook
from datamodules.leaves.picture import render
from mrdiff.system.cores import available_cores
from mrdiff.system.files import check_room, replacing

BANK_VERSION = 4  # raise it whenever the pictures change, so that old files are not taken for new
_KEY = "images"


def cache_folder() -> Path:
    """``$MRDIFF_CACHE``, or mrdiff's folder in the platform's cache (``~/.cache/mrdiff``)."""
    chosen = os.environ.get("MRDIFF_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("mrdiff"))


def _digest(images: NDArray[np.uint8]) -> str:
    return hashlib.blake2b(np.ascontiguousarray(images).data, digest_size=16).hexdigest()


@dataclass(frozen=True, kw_only=True)
class LeafBank:
    """``count`` square pictures of ``size`` pixels, a function of (seed, index, look) each."""

    count: int = 240
    size: int = 288
    seed: int = 0
    look: LeafLook = LOOK

    def __post_init__(self) -> None:
        if self.count < 1 or self.size < 16 or self.seed < 0:
            raise ValueError(f"need count >= 1, size >= 16 and seed >= 0, got {self}")

    @property
    def path(self) -> Path:
        """Where this bank lies, or will lie."""
        text = json.dumps(asdict(self), sort_keys=True)
        mark = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
        return cache_folder() / f"dead-leaves-v{BANK_VERSION}-{mark}.safetensors"

    def is_whole(self) -> bool:
        """Whether the file is there, of the right shape, and undamaged (reads all of it)."""
        if not self.path.is_file():  # a pipe would be waited for
            return False
        try:
            with safe_open(self.path, framework="numpy") as file:
                images = file.get_tensor(_KEY)
                checksum = (file.metadata() or {}).get("checksum")
        except (OSError, SafetensorError):
            return False
        shape = (self.count, self.size, self.size, 3)
        return images.shape == shape and images.dtype == np.uint8 and _digest(images) == checksum

    def ensure(self, *, workers: int | None = None) -> Path:
        """Make the bank unless a whole one is there; returns its path.

        Args:
            workers: processes that draw; None for one a core, at most 8; 0 for this process.

        Raises:
            DataError: the cache cannot be written.
        """
        if self.is_whole():
            return self.path
        cure = "set MRDIFF_CACHE to a writable folder with room"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            check_room(self.path.parent, self.count * self.size**2 * 3)  # not after the drawing
            images = self._draw(min(8, available_cores()) if workers is None else workers)
            with replacing(self.path) as temporary:
                save_file({_KEY: images}, temporary, metadata={"checksum": _digest(images)})
        except OSError as error:
            raise DataError(f"{self.path}: {error.strerror or error}; {cure}") from error
        except SafetensorError as error:  # of a disk that got full meanwhile
            raise DataError(f"{self.path}: {error}; {cure}") from error
        return self.path

    def _draw(self, workers: int) -> NDArray[np.uint8]:
        indices: Any = range(self.count)
        draw: Any = self._picture  # is called in the workers
        workers = min(workers, self.count)
        loader = DataLoader[Tensor](indices, batch_size=None, num_workers=workers, collate_fn=draw)
        images = np.empty((self.count, self.size, self.size, 3), np.uint8)
        columns = (*Progress.get_default_columns(), TimeElapsedColumn(), TextColumn("(once)"))
        with Progress(*columns, transient=True) as progress:
            drawing = progress.track(loader, self.count, description="Drawing dead leaves")
            for index, picture in enumerate(drawing):
                images[index] = picture
        return images

    def _picture(self, index: int) -> Tensor:
        return torch.from_numpy(render(self.seed, index, self.size, self.look))


class LeafReader:
    """Reads single pictures of a bank that is there; opened in each process at first use."""

    def __init__(self, bank: LeafBank) -> None:
        self.bank = bank

    def __getitem__(self, index: int) -> Tensor:
        """Picture ``index`` as uint8 ``[3, S, S]``: a patch of it is cheaper to convert.

        Raises:
            DataError: the bank has not been made.
        """
        return rearrange(torch.from_numpy(np.array(self._images[index])), "h w c -> c h w")

    @cached_property
    def _images(self) -> NDArray[np.uint8]:
        path, bank = self.bank.path, self.bank
        if not path.is_file():
            raise DataError(f"{path}: no such bank of pictures; call prepare() of the data first")
        # safetensors: 8 bytes of header length, the header, then the only tensor to the end.
        shape = (bank.count, bank.size, bank.size, 3)
        start = path.stat().st_size - math.prod(shape)
        if start < 0:
            raise DataError(f"{path}: cut short; delete it, and it is made again")
        return np.memmap(path, np.uint8, mode="r", offset=start, shape=shape)

    def __getstate__(self) -> dict[str, object]:
        return {"bank": self.bank}  # spawned workers open the file themselves
