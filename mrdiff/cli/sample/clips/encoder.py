"""The encoder of a clip: the one that loses least of its frames."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import cast

from av.codec.codec import Codec, PixFmtLoss, UnknownCodecError, find_best_pix_fmt_of_list
from av.codec.context import Flags
from av.container import OutputContainer
from av.sidedata.sidedata import SideData
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from mrdiff.cli.sample.clips.pixels import MATRICES, bits_of
from mrdiff.photo import PhotoError

__all__ = ["add_encoder"]

# What makes their losses hardly visible.
_OPTIONS = {
    "libx264": {"crf": "14"},
    "libx265": {"crf": "14"},
    "libvpx-vp9": {"crf": "20", "b": "0"},
    "libsvtav1": {"crf": "20"},
}
_RGB, _LIMITED = 0, 1  # AVCOL_SPC_RGB, AVCOL_RANGE_MPEG


def _chroma(form: VideoFormat) -> int:
    """Samples of a colour in 64 pixels."""
    return form.chroma_width(8) * form.chroma_height(8)


def _coloured(form: VideoFormat) -> str:
    """A format to look for in its place: H.264 without colours is read in another range."""
    if len(form.components) > 1 or form.has_palette:
        return form.name
    return "yuv420p" if bits_of(form.name) <= 8 else f"yuv420p{min(bits_of(form.name), 12)}le"


def _fits(form: VideoFormat, frame: VideoFrame, name: str) -> bool:
    """Whether an encoder takes such frames in a format without alpha: most need whole chroma."""
    across, down = 8 // form.chroma_width(8), 8 // form.chroma_height(8)
    whole = frame.width % across == 0 and frame.height % down == 0
    return (whole or name == "libvpx-vp9") and not any(part.is_alpha for part in form.components)


def _choices(kind: str, frame: VideoFrame) -> Iterator[tuple[PixFmtLoss, str, str]]:
    """What is lost, the encoder and its pixel format, of each in the order of preference."""
    names = ["libvpx-vp9", "libsvtav1"] if kind == "webm" else ["libx264", "libx265"]
    if bits_of(frame.format.name) > 8:
        names.reverse()  # HDR is HEVC or AV1 nearly everywhere
    for name in names:
        if name == "libx265" and min(frame.width, frame.height) < 16:
            continue  # it takes none so small
        try:
            codec = Codec(name, "w")
        except UnknownCodecError:  # FFmpeg was built without it
            continue
        forms = [form.name for form in codec.video_formats or () if _fits(form, frame, name)]
        best, loss = find_best_pix_fmt_of_list(forms, _coloured(frame.format))
        if best is not None:
            yield loss, name, best.name


def _lost(frame: VideoFrame, pix_fmt: str, loss: PixFmtLoss, name: str) -> Iterator[str]:
    before, after = frame.format, VideoFormat(pix_fmt)
    if bits_of(before.name) > bits_of(pix_fmt):
        yield f"{bits_of(before.name)} bits a channel become {bits_of(pix_fmt)}"
    if any(part.is_alpha for part in before.components):
        yield "transparency is left out"
    if loss & PixFmtLoss.RESOLUTION:
        yield f"colours are kept at a lower resolution, {pix_fmt}"
    elif before.is_rgb == after.is_rgb and _chroma(after) > _chroma(before):
        yield f"for its size of {frame.width} x {frame.height} it is written as {pix_fmt}"
    if frame.colorspace not in (*MATRICES, _RGB, 2):
        yield "its colour matrix is not known here: restored with that of its size"
    if frame.interlaced_frame:
        yield "it is interlaced: the two fields of a frame are restored together"


def _hdr10(first: VideoFrame) -> str:
    """What x265 is told of the display that an HDR10 clip was made on."""
    told = ""
    if display := first.side_data.get("MASTERING_DISPLAY_METADATA"):
        numbers = struct.unpack("22i", bytes(cast(SideData, display)))
        parts = [n / (d or 1) for n, d in zip(numbers[:20:2], numbers[1:20:2], strict=True)]
        places = [round(part * 50000) for part in parts[:8]]  # R, G, B, white: x and y
        spots = zip("GBRW", (2, 4, 0, 6), strict=True)
        pairs = [f"{spot}({places[at]},{places[at + 1]})" for spot, at in spots]
        darkest, brightest = (round(part * 10000) for part in parts[8:])
        pairs[3] = pairs[3].replace("W", "WP")
        told = f":master-display={''.join(pairs)}L({brightest},{darkest})"
    if light := first.side_data.get("CONTENT_LIGHT_LEVEL"):
        told += ":max-cll={},{}".format(*struct.unpack("2I", bytes(cast(SideData, light))))
    return told


def add_encoder(
    target: OutputContainer, source: VideoStream, first: VideoFrame
) -> tuple[VideoStream, list[str]]:
    """A stream of the size, the shape, the times and the colours of ``source``, and what it loses.

    ``first`` is its first frame. A container that takes no encoder of here is a PhotoError.
    """
    os.environ.setdefault("SVT_LOG", "1")  # errors alone
    kind = target.format.name
    rates = (source.base_rate if kind == "avi" else None, source.average_rate, source.guessed_rate)
    rate = next((r for r in rates if r is not None and 0 < r <= 240), Fraction(25))
    for choice in sorted(_choices(kind, first), key=lambda c: c[0] & ~PixFmtLoss.ALPHA):
        try:
            stream = target.add_stream(choice[1], rate=rate)
        except ValueError:  # not in this container
            continue
        loss, name, pix_fmt = choice
        break
    else:
        raise PhotoError(f"{first.format.name} frames cannot be written into {kind} here")
    assert isinstance(stream, VideoStream)
    context = stream.codec_context
    stream.options = {**_OPTIONS[name]}
    if name == "libx265":
        stream.options = {**_OPTIONS[name], "x265-params": f"log-level=none{_hdr10(first)}"}
    context.width, context.height, context.pix_fmt = first.width, first.height, pix_fmt
    if source.sample_aspect_ratio is not None:
        context.sample_aspect_ratio = source.sample_aspect_ratio
    context.time_base = source.time_base or 1 / rate
    for tag in ("colorspace", "color_range", "color_primaries", "color_trc"):
        setattr(context, tag, getattr(first, tag))
    if first.format.is_rgb and not VideoFormat(pix_fmt).is_rgb:
        context.colorspace, context.color_range = MATRICES[0], _LIMITED
    if name == "libx265" and kind in ("mp4", "mov"):
        context.codec_tag = "hvc1"  # Apple's players take no other
    if kind == "avi":  # a fixed rate, and no times of its own
        context.time_base, context.max_b_frames = 1 / rate, 0
    if first.interlaced_frame and name == "libx264" and first.height % 4 == 0:
        context.flags |= Flags.interlaced_dct
    return stream, list(_lost(first, pix_fmt, loss, name))
