"""Pictures as Python programs have them, Pillow's, arrays and tensors: to channels and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageOps
from torch import Tensor

from mrdiff.photo import from_pil, to_pil, to_uint8

__all__ = ["Picture", "channels_of"]

Picture = TypeVar("Picture", Image.Image, np.ndarray, Tensor)
_CARRIED = ("icc_profile", "dpi")


def channels_of(image: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """A picture as float32 ``[C, H, W]`` in [0, 1], C in 1 to 4, and the way back to its kind.

    It is a Pillow image, an array ``[H, W]`` or ``[H, W, C]`` of uint8, uint16 or floats, or a
    float tensor ``[C, H, W]``; another is a TypeError.
    """
    if isinstance(image, Image.Image):
        return from_pil(ImageOps.exif_transpose(image)), lambda x: _picture(x, image)
    if isinstance(image, np.ndarray):
        pixels = torch.from_numpy(np.asarray(image, dtype=np.float32) / np.float32(_top(image)))
        pixels = pixels[None] if image.ndim == 2 else rearrange(pixels, "h w c -> c h w")
        return pixels, lambda x: _array(x, image)
    if isinstance(image, Tensor):
        if not image.is_floating_point():
            raise TypeError(f"expected a float tensor in [0, 1], got {image.dtype}")
        return image.float(), lambda x: x.to(image.dtype)
    raise TypeError(f"expected a Pillow image, an array or a tensor, got {type(image)}")


def _picture(channels: Tensor, like: Image.Image) -> Image.Image:
    if like.mode.startswith("I"):
        result = Image.fromarray((channels[0] * 65535).round().numpy().astype(np.uint16))
    else:
        result = to_pil(channels)
    result.info.update({key: like.info[key] for key in _CARRIED if key in like.info})
    return result


def _top(image: np.ndarray) -> float:
    if np.issubdtype(image.dtype, np.floating):
        return 1.0
    if image.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"expected uint8, uint16 or float, got {image.dtype}")
    return float(np.iinfo(image.dtype).max)


def _array(channels: Tensor, like: np.ndarray) -> np.ndarray:
    top = _top(like)
    if like.dtype == np.uint8:
        channels = to_uint8(channels)
    elif top > 1:
        channels = (channels * top).round()
    result = channels[0] if like.ndim == 2 else rearrange(channels, "c h w -> h w c")
    return result.contiguous().numpy().astype(like.dtype)
