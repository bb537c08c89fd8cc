"""A clip frame by frame, with no files in between: all but its pictures comes back as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame

from mrdiff.cli.sample.clips.encoder import add_encoder
from mrdiff.cli.sample.clips.losses import display_matrix, losses
from mrdiff.cli.sample.clips.pixels import Pixels
from mrdiff.cli.sample.clips.reading import Reader, first_frame, opened
from mrdiff.cli.sample.clips.request import KINDS
from mrdiff.cli.sample.clips.streams import AS_BYTES, Copies, is_cover, main_stream, said
from mrdiff.photo import PhotoError
from mrdiff.system.files import replacing

__all__ = ["restore_clip"]

Work = Callable[[np.ndarray], np.ndarray]  # [H, W, 3] of uint8 or uint16


def _options(suffix: str, clip: InputContainer) -> dict[str, str]:
    """Of the muxer."""
    if KINDS[suffix] == "mpegts":
        return {"mpegts_copyts": "1", "mpegts_m2ts_mode": str(int(suffix != ".ts"))}
    if KINDS[suffix] in ("mp4", "mov") and any(key.startswith("com.") for key in clip.metadata):
        return {"movflags": "use_metadata_tags"}  # a phone's: where and when it was taken
    return {}


class _Writer:
    """The clip that is written, in the order of the one that is read."""

    def __init__(self, clip: InputContainer, target: OutputContainer, first: VideoFrame) -> None:
        self.target = target
        self.copies = Copies(clip, target)
        self.frames = 0
        self.moved = 0.0  # seconds, the most that a frame's time was changed
        self._last: int | None = None
        video = main_stream(clip)
        for stream in sorted(clip.streams, key=is_cover):  # which are read as the last
            if stream is not video:
                self.copies.add(stream)
                continue
            self.stream, self.notes = add_encoder(target, stream, first)
            self.copies.match(stream, self.stream)
        self.stream.set_display_matrix(display_matrix(first))
        self.pixels = Pixels(self.stream.codec_context)
        target.metadata.update(said(clip.metadata))
        if "timecode" in self.stream.metadata:  # else all streams would get it
            target.metadata.pop("timecode", None)
        target.set_chapters(clip.chapters())

    def write(self, frame: VideoFrame, work: Work) -> None:
        frame = self.pixels.worked(frame, work)
        self._time(frame)
        self.target.mux(self.stream.encode(frame))
        self.frames += 1

    def _time(self, frame: VideoFrame) -> None:
        """Its time in units of the encoder, later than the last."""
        unit = self.stream.codec_context.time_base or Fraction(1, 25)  # it has one
        last, step = self._last, max(1, round(1 / ((self.stream.average_rate or 25) * unit)))
        if frame.pts is None or frame.time_base is None:
            time = 0 if last is None else last + step
        else:
            exact = frame.pts * frame.time_base
            time = round(exact / unit) if last is None else max(round(exact / unit), last + 1)
            self.moved = max(self.moved, float(abs(time * unit - exact)))
        frame.pts, frame.time_base, self._last = time, unit, time

    def close(self) -> None:
        self.target.mux(self.stream.encode())
        self.target.close()

    def changes(self, clip: InputContainer) -> Iterator[str]:
        """What was changed or left out while it was written."""
        yield from self.notes
        if (count := sum(not is_cover(s) for s in clip.streams.video)) > 1:
            yield f"only the first of {count} video streams is restored"
        yield from self.copies.lost
        if self.pixels.scaled:
            yield f"{self.pixels.scaled} frames of another size were scaled"
        if self.moved > 0.05:
            yield f"times of frames were changed, by up to {self.moved:.2f} s"
        if self.copies.refused:
            yield f"{self.copies.refused} packets of other streams could not be copied"


def _write(source: Path, target: Path, first: VideoFrame, work: Work) -> tuple[int, list[str]]:
    """Frames and notes of a clip written to ``target``, whose final suffix says what it is."""
    with replacing(target) as temporary, opened(source) as clip:
        options = _options(target.suffix.lower(), clip)
        kind = KINDS[target.suffix.lower()]
        name = str(temporary)
        with av.open(name, "w", kind, container_options=options, metadata_errors=AS_BYTES) as made:
            video = main_stream(clip)
            assert video is not None  # it has a first frame
            writer, reader = _Writer(clip, made, first), Reader(clip, video)
            for item in reader:
                if isinstance(item, Packet):
                    writer.copies.mux(item)
                else:
                    writer.write(item, work)
            writer.close()
        notes = [*reader.damage(), *writer.changes(clip)]
        if lost := losses(source, temporary, writer.copies.kept):
            notes.append(f"lost in {target.suffix}: {', '.join(lost)}")
    return writer.frames, notes


def restore_clip(
    source: Path, target: Path, work: Work, *, max_pixels: int
) -> tuple[int, list[str]]:
    """Write ``source`` after ``work`` on its frames to ``target``: how many, and what to note.

    ``work`` gets and returns ``[H, W, 3]``, uint8, or uint16 where there are more than 8 bits. The
    suffix of ``target`` is one of ``KINDS``. The file appears when it is whole; damaged frames are
    left out, and all else in the clip is copied.

    Raises:
        PhotoError: it cannot be read, or not written here.
        OSError: there is no room or no permission for ``target``.
    """
    first = first_frame(source)
    if first.width * first.height > max_pixels:
        size = f"{first.width} x {first.height}"
        raise PhotoError(f"{source}: frames of {size} pixels: raise --max_megapixels")
    try:
        return _write(source, target, first, work)
    except av.FFmpegError as error:
        raise PhotoError(f"{target}: cannot be written: {error.strerror}") from error
