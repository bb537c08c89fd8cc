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
from mrdiff.photo.channels import scaled
from mrdiff.photo.inks import INKS, NO_RGB, fits, to_srgb

__all__ = ["Picture", "channels_of"]

Picture = TypeVar("Picture", Image.Image, np.ndarray, Tensor)
_CARRIED = ("icc_profile", "dpi")


def channels_of(image: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """A picture as float32 ``[C, H, W]`` in [0, 1], C in 1 to 4, and the way back to its kind.

    It is a Pillow image, an array ``[H, W]`` or ``[H, W, C]`` of uint8, uint16 or floats, or a
    float tensor ``[C, H, W]``; another is a TypeError. Floats not in [0, 1] and other shapes are a
    ValueError; print colours become sRGB.
    """
    if isinstance(image, Image.Image):
        _check(0 not in image.size, "a picture", image.size)
        upright = ImageOps.exif_transpose(image)
        plain = to_srgb(upright)[0] if image.mode in NO_RGB else upright
        return from_pil(plain), lambda x: _picture(x, image)
    if isinstance(image, np.ndarray):
        top, shape = _top(image), image.shape
        fits = image.size and (image.ndim == 2 or (image.ndim == 3 and shape[2] <= 4))
        _check(fits, "[H, W] or [H, W, C] with 1 to 4 channels", shape)
        pixels = torch.from_numpy(scaled(image, top=top))
        pixels = pixels[None] if image.ndim == 2 else rearrange(pixels, "h w c -> c h w")
        return pixels, lambda x: _array(x, image)
    if isinstance(image, Tensor):
        if not image.is_floating_point():
            raise TypeError(f"expected a float tensor in [0, 1], got {image.dtype}")
        fits = image.numel() and image.ndim == 3 and image.shape[0] <= 4
        _check(fits, "[C, H, W] with 1 to 4 channels", tuple(image.shape))
        pixels = torch.from_numpy(scaled(image.detach().float().cpu().numpy(), top=1.0))
        return pixels.to(image.device), lambda x: x.to(image.dtype)
    raise TypeError(f"expected a Pillow image, an array or a tensor, got {type(image)}")


def _check(fits: object, expected: str, shape: tuple[int, ...]) -> None:
    if not fits:
        raise ValueError(f"expected {expected} and some pixels, got {shape}")


def _picture(channels: Tensor, like: Image.Image) -> Image.Image:
    if like.mode.startswith("I"):
        result = Image.fromarray((channels[0] * 65535).round().numpy().astype(np.uint16))
    elif like.mode == "F":
        result = Image.fromarray(channels[0].contiguous().numpy())
    else:
        result = to_pil(channels)
    result.info.update({key: like.info[key] for key in _CARRIED if key in like.info})
    icc = result.info.get("icc_profile") or b""
    if like.mode in INKS or not fits(icc, grey=channels.shape[0] <= 2):
        result.info.pop("icc_profile", None)
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
