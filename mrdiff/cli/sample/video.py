"""A video frame by frame, through PyAV (``pip install 'mrdiff[video]'``): no files in between.

Every frame has the same noise, so that what is drawn does not flicker. Times and sound are copied.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mrdiff.networks.protocol import Context
from mrdiff.photo import PhotoError
from mrdiff.photo.kinds import channels_of
from mrdiff.restoration.restorer import Restorer
from mrdiff.system.files import replacing

__all__ = ["VIDEO_SUFFIXES", "restore_video"]

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v"})
_QUALITY = {"libx264": "14", "libvpx-vp9": "20"}  # constant rate factors: hardly visible
_COPIED = ("color_range", "color_primaries", "color_trc", "colorspace")


def _video_stream(source: Any, target: Any, suffix: str) -> Any:
    """A stream to write, of the size, the times and the colours of ``source``."""
    codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
    stream = target.add_stream(codec, rate=source.average_rate or 25)
    context = source.codec_context
    stream.width, stream.height = context.width, context.height
    odd = context.width % 2 or context.height % 2  # half the colour resolution needs even sides
    stream.pix_fmt = "yuv444p" if odd else "yuv420p"
    stream.codec_context.time_base = source.time_base
    stream.options = {"crf": _QUALITY[codec]}
    for name in _COPIED:
        setattr(stream.codec_context, name, getattr(context, name))
    return stream


def _convert(source: Any, target: Any, suffix: str, work: Callable[[Any], Any]) -> None:
    """Decode, work on the frames, encode, and copy sound as it is, in the order of the file."""
    video = source.streams.video[0]
    written = _video_stream(video, target, suffix)
    sound = {s.index: target.add_stream_from_template(s) for s in source.streams.audio}
    for packet in source.demux([video, *source.streams.audio]):
        if packet.stream.index in sound:
            if packet.dts is not None:  # else it only marks the end
                packet.stream = sound[packet.stream.index]
                target.mux(packet)
            continue
        for frame in packet.decode():
            target.mux(written.encode(work(frame)))
    target.mux(written.encode())


def restore_video(
    restorer: Restorer,
    source: Path,
    target: Path,
    *,
    features: Context,
    on_frame: Callable[[], None],
) -> int:
    """Restore a video and return how many frames there were; the file appears when it is whole."""
    if importlib.util.find_spec("av") is None:
        raise PhotoError(f"{source}: a video needs PyAV: pip install 'mrdiff[video]'")
    import av

    frames = 0

    def work(frame: Any) -> Any:
        nonlocal frames
        pixels, as_array = channels_of(frame.to_ndarray(format="rgb24"))
        restored = restorer.restore(pixels[None], [source.stem], features=[features])[0]
        result = av.VideoFrame.from_ndarray(as_array(restored), format="rgb24")
        result.pts, result.time_base = frame.pts, frame.time_base
        frames += 1
        on_frame()
        return result

    try:
        with av.open(str(source)) as opened:
            if not opened.streams.video:
                raise PhotoError(f"{source}: no pictures in this file")
            suffix = target.suffix.lower()
            kind = {".mkv": "matroska", ".m4v": "mp4"}.get(suffix, suffix.removeprefix("."))
            with replacing(target) as temporary:
                with av.open(str(temporary), "w", format=kind) as written:
                    _convert(opened, written, suffix, work)
                if not frames:
                    raise PhotoError(f"{source}: no frame could be decoded")
    except av.FFmpegError as error:
        raise PhotoError(f"{source}: {error.strerror}") from error
    return frames
