"""What a clip holds besides the pictures that are restored, copied as it is."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

__all__ = ["AS_BYTES", "Copies", "is_cover", "main_stream", "said"]

AS_BYTES = "surrogateescape"  # metadata that is no UTF-8 is kept byte for byte
_OF_THE_FILE = re.compile(
    r"(major_brand|minor_version|compatible_brands|encoder|software|vendor_id|handler_name|"
    r"duration|alpha_mode|bps|number_of_|_?statistics_|source_id).*",
    re.IGNORECASE,
)


def said(metadata: Mapping[str, str]) -> dict[str, str]:
    """What someone said of a clip, without what programs note of the file itself."""
    names = {"name": "title"}  # of a stream of an MP4, as its muxer wants it
    kept = {key: value for key, value in metadata.items() if not _OF_THE_FILE.fullmatch(key)}
    return {names.get(key, key): value for key, value in kept.items()}


def is_cover(stream: Stream) -> bool:
    """Whether it is one picture for the whole clip."""
    return Disposition.attached_pic in stream.disposition


def main_stream(source: InputContainer) -> VideoStream | None:
    """The pictures that are restored."""
    return next((stream for stream in source.streams.video if not is_cover(stream)), None)


def _held(stream: Stream, kind: str) -> bool:
    """Whether a container can hold a stream as it is: tried in memory."""
    try:
        with av.open(io.BytesIO(), "w", format=kind) as trial:
            trial.add_stream_from_template(stream, opaque=True)
            trial.start_encoding()
    except (av.FFmpegError, ValueError):  # its muxer and PyAV refuse
        return False
    return True


class Copies:
    """Streams of ``source`` that ``target`` has, too; ``lost`` says what it cannot have."""

    def __init__(self, source: InputContainer, target: OutputContainer) -> None:
        self.source, self.target = source, target
        self.kept: set[int] = set()
        self.lost: list[str] = []
        self.refused = 0  # packets of damaged streams
        self._streams: dict[int, Stream] = {}
        self._times: dict[int, int] = {}

    def add(self, stream: Stream) -> None:
        """Copy a stream from now on, if the container can hold it."""
        metadata = said(stream.metadata)
        if stream.type == "data" and ("timecode" in metadata or self._is_chapters(stream)):
            return  # the muxer makes it anew
        kind = self.target.format.name
        if is_cover(stream) and kind == "matroska":
            self._attach(stream)
            return
        alone = kind in ("avi", "flv") and stream.type == "video"  # the muxer takes one only
        if alone or not _held(stream, kind):
            name = getattr(stream, "name", None) or "of an unknown kind"
            language = f", {stream.language}" if stream.language else ""
            advice = ": .mkv can hold it" if _held(stream, "matroska") else ""
            what = f"stream {stream.index}, {stream.type} ({name}{language})"
            self.lost.append(f"{what}, is left out{advice}")
            return
        self.match(stream, self.target.add_stream_from_template(stream, opaque=True))

    def match(self, stream: Stream, written: Stream) -> None:
        """Let ``written`` say what ``stream`` says."""
        written.metadata.update(said(stream.metadata))
        if handler := stream.metadata.get("handler_name"):
            written.metadata["handler_name"] = handler
        written.disposition = stream.disposition
        self.kept.add(stream.index)
        self._streams[stream.index] = written

    def _attach(self, cover: Stream) -> None:
        """Matroska's covers are files in it."""
        self.kept.add(cover.index)
        with av.open(self.source.name, "r", metadata_errors=AS_BYTES) as again:
            packets = again.demux(again.streams[cover.index])
            content = next((bytes(packet) for packet in packets if packet.size), b"")
        kind = "png" if getattr(cover, "name", None) == "png" else "jpeg"
        name = cover.metadata.get("filename", f"cover.{kind}")
        self.target.add_attachment(name, cover.metadata.get("mimetype", f"image/{kind}"), content)

    def _is_chapters(self, stream: Stream) -> bool:
        chapters = self.source.chapters()
        return bool(chapters) and stream.frames == len(chapters)

    def mux(self, packet: Packet) -> None:
        """Write a packet of a stream that is copied; a damaged one is left out."""
        index = packet.stream_index
        if index not in self._streams or packet.size == 0:  # which marks the end
            return
        last = self._times.get(index)
        if packet.pts is None:
            packet.pts = packet.dts = packet.dts or 0  # a cover has no time
        if packet.dts is None:  # pictures of a Matroska file that come in another order
            early = packet.pts - 2 * (packet.duration or 1)
            packet.dts = early if last is None else last + 1
        if last is not None and packet.dts < last:
            self.refused += 1
            return
        self._times[index] = packet.dts
        packet.stream = self._streams[index]
        try:
            self.target.mux(packet)
        except (av.ArgumentError, av.InvalidDataError):  # damaged
            self.refused += 1
