"""A video frame by frame, through PyAV (``pip install 'mrdiff[video]'``): no files in between.

Every frame has the same noise, so that what is drawn does not flicker. Times and sound are copied.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mrdiff.photo import PhotoError
from mrdiff.restoration.restorer import Restorer
from mrdiff.system.files import replacing

__all__ = ["VIDEO_SUFFIXES", "restore_video"]

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v"})
_QUALITY = {"libx264": "14", "libvpx-vp9": "20"}  # constant rate factors: hardly visible
_COPIED = ("color_range", "color_primaries", "color_trc", "colorspace")


def _video_stream(source: Any, target: Any, suffix: str) -> Any:
    """The stream that is written: of the size, the times and the colours of ``source``."""
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


def _restored(av: Any, frame: Any, restorer: Restorer, name: str) -> Any:
    array = restorer(frame.to_ndarray(format="rgb24"), name=name)
    result = av.VideoFrame.from_ndarray(array, format="rgb24")
    result.pts, result.time_base = frame.pts, frame.time_base
    return result


def _convert(av: Any, source: Any, target: Any, suffix: str, work: Callable[[Any], Any]) -> None:
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
    restorer: Restorer, source: Path, target: Path, *, on_frame: Callable[[], None]
) -> int:
    """Restore a video; the file appears when it is whole.

    Args:
        restorer: the model.
        source: the video.
        target: of the same suffix.
        on_frame: called after each frame.

    Returns:
        How many frames there were.

    Raises:
        PhotoError: PyAV is not there, the file is broken or has no pictures.
        OSError: the disk fails.
    """
    if importlib.util.find_spec("av") is None:
        raise PhotoError(f"{source}: a video needs PyAV: pip install 'mrdiff[video]'")
    import av

    frames = 0

    def work(frame: Any) -> Any:
        nonlocal frames
        frames += 1
        restored = _restored(av, frame, restorer, source.stem)
        on_frame()
        return restored

    try:
        with av.open(str(source)) as opened:
            if not opened.streams.video:
                raise PhotoError(f"{source}: no pictures in this file")
            kind = {".mkv": "matroska", ".m4v": "mp4"}.get(target.suffix.lower())
            kind = kind or target.suffix.lower().removeprefix(".")
            with replacing(target) as temporary:
                written = av.open(str(temporary), "w", format=kind)
                with written:
                    _convert(av, opened, written, target.suffix.lower(), work)
                if not frames:
                    raise PhotoError(f"{source}: no frame could be decoded")
    except av.FFmpegError as error:
        raise PhotoError(f"{source}: {error.strerror}") from error
    return frames
