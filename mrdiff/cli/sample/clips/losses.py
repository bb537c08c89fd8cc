"""What a clip that was written lacks of the one it was made from: both are read and compared."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import cast

from av.sidedata.sidedata import SideData
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame

from mrdiff.cli.sample.clips.reading import first_frame, opened
from mrdiff.cli.sample.clips.streams import is_cover, main_stream, said

__all__ = ["display_matrix", "losses"]

_TAGS = {"colorspace": "matrix", "color_primaries": "primaries", "color_trc": "transfer"}
_SIDES = {
    "MASTERING_DISPLAY_METADATA": "HDR10's mastering display",
    "CONTENT_LIGHT_LEVEL": "HDR10's light levels",
    "DYNAMIC_HDR_PLUS": "HDR10+",
    "DOVI_METADATA": "Dolby Vision",
    "A53_CC": "closed captions",
    "SPHERICAL": "its sphere",
    "STEREO3D": "its two views",
}


def display_matrix(frame: VideoFrame) -> tuple[int, ...] | None:
    """How a frame is turned for display: FFmpeg's 9 numbers."""
    side = frame.side_data.get("DISPLAYMATRIX")
    return None if side is None else struct.unpack("9i", bytes(cast(SideData, side)))


def _of_frame(first: VideoFrame) -> dict[str, object]:
    matrix = display_matrix(first) or (1 << 16, 0, 0, 0, 1 << 16)
    turned = [round(matrix[i] / 65536, 1) for i in (0, 1, 3, 4)]
    facts: dict[str, object] = {"rotation": None if turned == [1, 0, 0, 1] else turned}
    for tag, name in _TAGS.items():
        facts[f"its colour {name}"] = None if getattr(first, tag) in (0, 2) else getattr(first, tag)
    facts["its full range of colours"] = first.color_range == 2 or None
    return facts | {name: True for side, name in _SIDES.items() if first.side_data.get(side)}


def _of_stream(stream: Stream) -> dict[str, object]:
    facts: dict[str, object] = {key.lower(): v for key, v in said(stream.metadata).items()}
    uses = [use for use in Disposition if use in stream.disposition and use != Disposition.default]
    facts |= {str(use.name): True for use in uses}
    facts.pop("creation_time", None)  # the file's own
    return {key: value for key, value in facts.items() if value != "und"}  # no language


def _facts(path: Path, kept: Collection[int] | None = None) -> dict[str, object]:
    """What can be lost, by the names that a note gives it; of the streams, those ``kept``."""
    first = first_frame(path)
    facts = {**_of_frame(first), "its start time": round(first.time or 0)}
    with opened(path) as clip:
        facts |= {key.lower(): value for key, value in said(clip.metadata).items()}
        facts["chapters"] = [c["metadata"].get("title") for c in clip.chapters()] or None
        video = main_stream(clip)
        shape = video and video.sample_aspect_ratio
        facts["the shape of its pixels"] = None if shape == 1 else shape
        counts: Counter[str] = Counter()  # muxers may change the order of kinds
        for stream in clip.streams:
            if kept is None or stream.index in kept:
                kind = "cover" if is_cover(stream) else f"{stream.type} stream"
                counts[kind] += 1
                facts[named := f"{kind} {counts[kind]}"] = True
                facts |= {f"{key} of {named}": v for key, v in _of_stream(stream).items()}
    if any(name.startswith("timecode of ") for name in facts):
        facts.pop("timecode", None)  # the file repeats it if there is one
    return facts


def losses(source: Path, written: Path, kept: Collection[int]) -> list[str]:
    """What ``written`` does not say as ``source`` does, of whose streams these were ``kept``."""
    before, after = _facts(source, kept), _facts(written)
    lost = [name for name, fact in before.items() if fact is not None and after.get(name) != fact]
    return [name for name in lost if name.rpartition(" of ")[2] not in lost or " of " not in name]
