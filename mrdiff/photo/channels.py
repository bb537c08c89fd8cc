"""Pixels as float channels ``[C, H, W]`` in [0, 1], from Pillow and back.

Pillow's own ``convert("RGB")`` is not enough: it clips 16-bit grey at 255 and shows whatever
colours lie under transparent pixels. The modes are therefore handled one by one here.
"""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

__all__ = [
    "GREY_MODES",
    "LUMA",
    "centre_crop",
    "composite",
    "from_pil",
    "like_original",
    "scaled",
    "to_pil",
    "to_rgb",
    "to_uint8",
]

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's own conversion to grey
_EIGHT_BIT = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_BEYOND = 0.01
_SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")
GREY_MODES = ("1", "L", "LA", "La", "F", *_SIXTEEN_BIT)


def scaled(values: np.ndarray, *, top: float) -> np.ndarray:
    """``values / top`` in float32 and in [0, 1]; a ValueError of those that are not.

    But for the 1 % of floats that rounding and resizing leave beyond, which is cut.
    """
    if values.size == 0:
        raise ValueError(f"expected pixels, got none: {values.shape}")
    low, high = float(values.min()), float(values.max())
    beyond = _BEYOND * top if values.dtype.kind == "f" else 0
    if not (low >= -beyond and high <= top + beyond):  # also catches NaN
        raise ValueError(f"values from {low:g} to {high:g}, expected 0 to {top:g}")
    exact: np.ndarray = values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
    result = (exact / top).astype(np.float32, copy=False)
    return result.clip(0, 1) if low < 0 or high > top else result


def from_pil(image: Image.Image) -> Tensor:
    """A Pillow image as float32 ``[C, H, W]`` in [0, 1]; C = 1 grey, 2 grey+alpha, 3 RGB, 4 RGBA.

    The EXIF orientation is not applied. 16-bit RGB files come from Pillow in 8 bits already; 16-bit
    grey keeps all its bits. Floating-point or 32-bit values outside the range are a ValueError.
    """
    if image.mode in _SIXTEEN_BIT:
        return torch.from_numpy(scaled(np.asarray(image), top=65535.0))[None]
    if image.mode == "F":
        return torch.from_numpy(scaled(np.asarray(image), top=1.0))[None]
    alpha = image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info
    grey = image.mode in ("1", "L", "LA", "La")
    mode = _EIGHT_BIT[(1 if grey else 3) + int(alpha)]
    if image.mode == "La":  # premultiplied: Pillow leads from it to LA alone
        image = image.convert("LA")
    pixels = np.array(image if image.mode == mode else image.convert(mode))  # a writable copy
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    planes = rearrange(torch.from_numpy(pixels), "h w c -> c h w").contiguous()  # while bytes
    return planes.float().div_(255.0)


def composite(image: Tensor) -> Tensor:
    """``[C, H, W]``, C in 1 to 4, as RGB ``[3, H, W]``: grey repeated, alpha laid on white."""
    colour = image[:1] if image.shape[0] <= 2 else image[:3]
    if image.shape[0] in (2, 4):
        colour = colour * image[-1:] + (1.0 - image[-1:])
    return colour.expand(3, -1, -1).contiguous()


def to_uint8(image: Tensor) -> Tensor:
    """Clamp to [0, 1] and round to 0..255: what an 8-bit file holds. Any shape."""
    return image.detach().float().clamp(0.0, 1.0).mul_(255.0).round_().to(torch.uint8)


def to_pil(image: Tensor) -> Image.Image:
    """Float ``[C, H, W]`` in [0, 1], C in 1 to 4, as an 8-bit Pillow image (L, LA, RGB, RGBA)."""
    if image.ndim != 3 or image.shape[0] not in _EIGHT_BIT:
        raise ValueError(f"expected [C, H, W] with 1 to 4 channels, got {tuple(image.shape)}")
    pixels = rearrange(to_uint8(image).cpu(), "c h w -> h w c").contiguous().numpy()
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def to_rgb(image: Tensor) -> Tensor:
    """``[C, H, W]``, C in 1 to 4, as the RGB ``[3, H, W]`` that a network is shown.

    Fully transparent pixels take the colour of the nearest visible one: what lies under them is
    arbitrary, black mostly, and would bleed into its surroundings.
    """
    if image.ndim != 3 or not 1 <= image.shape[0] <= 4:
        raise ValueError(f"expected [C, H, W] with 1 to 4 channels, got {tuple(image.shape)}")
    if image.shape[0] in (2, 4):
        hidden = (image[-1] <= 0).cpu().numpy()
        if hidden.any() and not hidden.all():
            from scipy.ndimage import distance_transform_edt  # slow to import, seldom needed

            nearest = distance_transform_edt(hidden, return_distances=False, return_indices=True)
            row, column = (torch.from_numpy(index).long().to(image.device) for index in nearest)
            image = image[:, row, column]
        image = image[:-1]
    return image.expand(3, -1, -1)


def like_original(rgb: Tensor, original: Tensor) -> Tensor:
    """RGB ``[3, H, W]`` with the channels of the original ``[C, H, W]``, C in 1 to 4.

    Grey stays grey and alpha is the original's, and so are the colours that it hides wholly.
    """
    if original.shape[0] <= 2:
        weights = torch.tensor(LUMA, dtype=rgb.dtype, device=rgb.device)
        rgb = torch.einsum("chw,c->hw", rgb, weights)[None]
    if original.shape[0] in (1, 3):
        return rgb
    alpha = original[-1:]
    return torch.cat([torch.where(alpha > 0, rgb, original[:-1]), alpha])


def centre_crop(image: Tensor, side: int | None) -> Tensor:
    """The middle of ``[..., H, W]``, at most ``side`` pixels high and wide; None: all of it."""
    if side is None:
        return image
    top, left = (max(length - side, 0) // 2 for length in image.shape[-2:])
    return image[..., top : top + side, left : left + side].contiguous()
