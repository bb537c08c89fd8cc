"""TIFF by what its tags say of the samples: Pillow reads few of the kinds there are."""

from __future__ import annotations

import io
import logging
import math
import re
from typing import NamedTuple

import numpy as np
import tifffile
import torch
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile
from tifffile import EXTRASAMPLE, PHOTOMETRIC
from torch import Tensor

from mrdiff.photo.channels import scaled
from mrdiff.photo.metadata import Metadata
from mrdiff.photo.tags import Tag, Tags, merged, parse_tags

__all__ = ["TIFF_STARTS", "TiffPixels", "decode_tiff", "encode_tiff", "is_plain"]

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS, _EXTRA, _FORMAT, _ORIENTATION, _XMP, _IPTC = 258, 338, 339, 274, 700, 33723
_COLOURS: dict[int, int] = {
    PHOTOMETRIC.MINISWHITE: 1,
    PHOTOMETRIC.MINISBLACK: 1,
    PHOTOMETRIC.RGB: 3,
    PHOTOMETRIC.PALETTE: 1,
    PHOTOMETRIC.SEPARATED: 4,
}
_ALPHA = (EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA)
logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its remarks name no file
_MOST_BYTES = 32  # of a pixel, where pixels are as many as may be
_KINDS = {"b": "uint", "u": "uint", "i": "int", "f": "float"}


class TiffPixels(NamedTuple):
    """A TIFF as it lies in the file, in [0, 1] and with black at 0.

    ``channels`` ``[C, H, W]`` are grey, RGB or CMYK, with alpha or without it; ``extra``
    ``[E, H, W]`` are neither colour nor transparency, as infrared. A number of type ``sample``
    ("uint", "int", "float") has ``bits``.
    """

    channels: Tensor
    extra: Tensor
    ink: bool
    bits: int
    sample: str
    orientation: int
    pages: int


def is_plain(image: TiffImageFile) -> bool:
    """Whether Pillow reads all of it: unsigned numbers of 8 bits or fewer, colours alone."""
    tags = image.tag_v2
    deepest, formats = max(tags.get(_BITS, (1,))), tags.get(_FORMAT, (1,))
    return deepest <= 8 and set(formats) == {1} and _EXTRA not in tags


def _orientation_of(xmp: object) -> int:
    found = re.search(rb"tiff:Orientation(?:=[\"']|>)([1-8])", xmp if type(xmp) is bytes else b"")
    return int(found[1]) if found else 1


def _check(page: tifffile.TiffPage) -> None:
    bits, colour = page.bitspersample, getattr(page.photometric, "name", page.photometric)
    what = f"a TIFF of {page.samplesperpixel} channels {colour}, {bits} bits {page.dtype}"
    if page.dtype is None or page.dtype.kind not in _KINDS or not isinstance(bits, int):
        raise ValueError(f"{what}, is not supported")
    if page.imagedepth > 1 or page.samplesperpixel < _COLOURS.get(page.photometric, math.inf):
        raise ValueError(f"{what}, is not supported")
    most = 2 * (Image.MAX_IMAGE_PIXELS or math.inf)
    size = page.imagewidth * page.imagelength
    if size > most or size * page.samplesperpixel * page.dtype.itemsize > most * _MOST_BYTES:
        raise Image.DecompressionBombError
    if len(page.dataoffsets) < math.prod(page.chunked):  # tifffile would make them up as black
        raise ValueError("the file is truncated: parts of the picture are missing")


def _samples(page: tifffile.TiffPage) -> tuple[NDArray[np.generic], int]:
    """``[H, W, C]`` and the bits of a number; a palette is looked up."""
    pixels, bits = page.asarray(), page.bitspersample
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1)
    pixels = pixels.reshape(page.imagelength, page.imagewidth, -1)
    if page.photometric == PHOTOMETRIC.PALETTE and page.colormap is not None:
        colours = np.moveaxis(page.colormap[:, pixels[..., 0]], 0, -1)
        return colours, 16
    return pixels, bits if pixels.dtype.kind in "bui" else pixels.dtype.itemsize * 8


def decode_tiff(data: bytes) -> TiffPixels:
    """The first picture of a file.

    Raises:
        ValueError: its samples are of a kind that has no meaning here, or beyond their range.
    """
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        _check(page)
        (values, bits), pages = _samples(page), len(file.pages)
        said = page.tags.valueof(_ORIENTATION) or _orientation_of(page.tags.valueof(_XMP))
        orientation = said if said in range(1, 9) else 1
        extras, palette = list(page.extrasamples), page.photometric == PHOTOMETRIC.PALETTE
    sample = _KINDS[values.dtype.kind]
    top = 1.0 if sample == "float" else 2.0 ** (bits - (sample == "int")) - 1
    pixels = rearrange(torch.from_numpy(scaled(values, top=top)), "h w c -> c h w")
    count = 3 if palette else _COLOURS[page.photometric]
    colours, extra = pixels[:count], pixels[count:]
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        colours = 1 - colours
    if not extras and len(extra) == 1:  # it is not said what it is: alpha, as other readers take it
        extras = [EXTRASAMPLE.UNASSALPHA]
    at = next((i for i, kind in enumerate(extras[: len(extra)]) if kind in _ALPHA), None)
    if at is not None:
        alpha = extra[at : at + 1]
        if extras[at] == EXTRASAMPLE.ASSOCALPHA:  # the colours are multiplied with it
            colours = torch.where(alpha > 0, colours / alpha, 0).clamp(max=1)
        colours = torch.cat([colours, alpha])
        extra = torch.cat([extra[:at], extra[at + 1 :]])
    ink = count == 4
    return TiffPixels(colours, extra, ink, max(8, bits), sample, orientation, pages)


def _numbers(values: Tensor, bits: int, dtype: str) -> NDArray[np.generic]:
    """[0, 1] as the numbers of a type, of which no more than ``bits`` are used."""
    if not dtype.startswith("float"):
        top = 2 ** (bits - dtype.startswith("int")) - 1
        values = (values if bits <= 16 else values.double()).mul(top).round()
        if bits > 53:  # the highest has no float64 of its own
            values = values.clamp(max=np.nextafter(float(top), 0))
    return np.ascontiguousarray(values.numpy().astype(dtype))


def encode_tiff(
    image: Tensor, metadata: Metadata, *, extra: Tensor | None, bits: int, sample: str
) -> bytes:
    """A TIFF of ``[C, H, W]`` and ``[E, H, W]`` in [0, 1], its numbers as they are asked for."""
    layers = image.cpu().float() if extra is None else torch.cat([image.cpu().float(), extra])
    width = next(size for size in (8, 16, 32, 64) if size >= bits)
    pixels = _numbers(rearrange(layers, "c h w -> h w c").clamp(0, 1), bits, f"{sample}{width}")
    colours = 3 if len(image) >= 3 else 1
    extras = ["unassalpha"] * (len(image) - colours)
    extras += ["unspecified"] * (len(layers) - len(image))
    tags = _tags(metadata)
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        pixels if pixels.shape[-1] > 1 else pixels[..., 0],
        byteorder=tags.order,
        photometric="rgb" if colours == 3 else "minisblack",
        planarconfig="contig" if pixels.shape[-1] > 1 else None,
        extrasamples=extras or None,
        # Packed numbers, of 12 bits say, are never compressed.
        compression="zlib" if bits == width else None,
        predictor=bits == width and (width < 64 or sample == "float"),
        bitspersample=None if bits == width else bits,
        resolution=metadata.dpi,
        resolutionunit="INCH" if metadata.dpi else None,
        iccprofile=metadata.icc,
        metadata=None,
        software=False,
    )
    return merged(buffer.getvalue(), tags)


def _tags(metadata: Metadata) -> Tags:
    blocks = [parse_tags(block) for block in (metadata.exif, metadata.geo) if block]
    tags = blocks[0] if blocks else Tags()
    for other in blocks[1:]:
        tags.main |= other.main
    if metadata.xmp:
        tags.main[_XMP] = Tag(1, len(metadata.xmp), metadata.xmp)
    if metadata.iptc:
        tags.main[_IPTC] = Tag(7, len(metadata.iptc), metadata.iptc)
    return tags
