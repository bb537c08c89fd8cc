"""The packets of a clip and the frames of its pictures, as far as they can be decoded."""

from __future__ import annotations

import contextlib
import heapq
import os
from collections.abc import Iterator
from pathlib import Path

import av
from av.codec.context import Flags
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from mrdiff.cli.sample.clips.streams import AS_BYTES, main_stream
from mrdiff.photo import PhotoError

__all__ = ["Reader", "first_frame", "opened"]

# Not what opens further files, such as playlists.
_DEMUXERS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,h264,hevc,m4v,ogg,asf,flv,mxf,dv,gif,ivf"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """A clip to read; one that cannot be opened is a PhotoError."""
    try:  # an absolute path, or a colon in the name would make it a protocol
        name, options = os.path.abspath(path), {"format_whitelist": _DEMUXERS}
        clip = av.open(name, "r", container_options=options, metadata_errors=AS_BYTES)
    except (av.FFmpegError, ValueError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PhotoError(f"{path}: cannot be read as a clip: {reason}") from error
    with clip:
        yield clip


class Reader:
    """Walks through a clip once; counts what it cannot decode."""

    def __init__(self, clip: InputContainer, video: VideoStream) -> None:
        self.clip, self.video = clip, video
        # What follows a damaged frame refers to it, until the next that does not.
        video.codec_context.flags |= Flags.output_corrupt
        self.lost = 0  # packets of the pictures
        self.corrupt = 0  # frames that are there, with holes
        self.end = 0.0  # seconds
        self.broken = ""  # why it ends before its end
        # AVI has no times of display: they are those of decoding, in order.
        self._times: list[int] | None = [] if clip.format.name == "avi" else None

    def __iter__(self) -> Iterator[Packet | VideoFrame]:
        """Packets of other streams, and frames, in the order of the file."""
        try:
            for packet in self.clip.demux():
                if packet.pts is not None and packet.time_base:
                    last = packet.pts + (packet.duration or 0)
                    self.end = max(self.end, float(last * packet.time_base))
                if packet.stream_index == self.video.index:
                    yield from self._decoded(packet)
                else:
                    yield packet
        except (av.FFmpegError, MemoryError) as error:
            self.broken = getattr(error, "strerror", None) or "out of memory"
            yield from self._decoded(None)

    def _decoded(self, packet: Packet | None) -> Iterator[VideoFrame]:
        try:
            frames = self.video.codec_context.decode(packet)
        except (av.FFmpegError, ValueError, MemoryError):
            self.lost += packet is not None and packet.size > 0
            return
        if self._times is not None and packet is not None and packet.dts is not None:
            heapq.heappush(self._times, packet.dts)
        for frame in frames:
            self.corrupt += frame.is_corrupt
            frame.time_base = self.video.time_base
            if self._times is not None:
                frame.pts = heapq.heappop(self._times) if self._times else None
            yield frame

    def damage(self) -> Iterator[str]:
        """What was not there or could not be decoded, in words."""
        if self.lost:
            yield f"{self.lost} damaged packets could not be decoded: their frames are left out"
        if self.corrupt:
            yield f"{self.corrupt} frames are spoilt by what was damaged before them"
        whole = (self.clip.duration or 0) / av.time_base  # from 0; of an MPEG-TS it is a guess
        if self.broken:
            yield f"it could be read up to {self.end:.1f} s only: {self.broken}"
        elif whole - self.end > 1:
            yield f"it ends at {self.end:.1f} s and not, as it says, at {whole:.1f} s"


def first_frame(path: Path) -> VideoFrame:
    """The first frame that can be decoded; none is a PhotoError."""
    with opened(path) as clip:
        video = main_stream(clip)
        if video is None:
            raise PhotoError(f"{path}: no moving pictures in this file")
        if video.codec_context is None:
            raise PhotoError(f"{path}: its pictures are of a kind that FFmpeg does not know")
        for item in Reader(clip, video):
            if isinstance(item, VideoFrame) and item.width and item.height:
                return item
    raise PhotoError(f"{path}: no frame could be decoded")
