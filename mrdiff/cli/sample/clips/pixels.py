"""Frames as RGB and back, both ways by the colour matrix and the range of their tags."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

__all__ = ["MATRICES", "Pixels", "bits_of"]

_EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND
_EXACT |= Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
MATRICES = (1, 4, 5, 6, 7, 9)  # of FFmpeg's AVCOL_SPC, those that it converts


def bits_of(name: str) -> int:
    """Bits of a sample of a pixel format."""
    return max((part.bits for part in VideoFormat(name).components), default=8)


def _matrix(tagged: VideoFrame | VideoCodecContext) -> int:
    """Its own, else what players take for such a size."""
    if tagged.colorspace in MATRICES:
        return tagged.colorspace
    return int(Colorspace.ITU709 if tagged.height > 576 else Colorspace.ITU601)


class Pixels:
    """Works on the RGB of frames; what a frame carries besides (captions, timecodes) stays with it.

    What :meth:`worked` returns has the size, the format and the colours of ``encoder``.
    """

    def __init__(self, encoder: VideoCodecContext) -> None:
        self.width, self.height = encoder.width, encoder.height
        self.matrix, self.range = _matrix(encoder), encoder.color_range
        self.pix_fmt = encoder.pix_fmt
        self._in, self._out = VideoReformatter(), VideoReformatter()
        self.scaled = 0  # frames that had another size

    def worked(self, frame: VideoFrame, work: Callable[[np.ndarray], np.ndarray]) -> VideoFrame:
        """``frame`` after ``work`` on its ``[H, W, 3]``, uint8, or uint16 if it has more bits."""
        self.scaled += (frame.width, frame.height) != (self.width, self.height)
        deep = bits_of(frame.format.name) > 8
        frame.colorspace = _matrix(frame)
        rgb = self._in.reformat(
            frame,
            width=self.width,
            height=self.height,
            format="rgb48le" if deep else "rgb24",
            interpolation=_EXACT,
            threads=1,
        )
        rgb.make_writable()  # the decoder may still need the picture
        plane = rgb.planes[0]
        rows = np.frombuffer(plane, "<u2" if deep else np.uint8)  # type: ignore[call-overload]
        rows = rows.reshape(self.height, -1)[:, : self.width * 3]
        rows[:] = work(rows.reshape(self.height, self.width, 3)).reshape(rows.shape)
        rgb.colorspace, rgb.color_range = self.matrix, self.range
        rgb.pict_type = 0  # the encoder's choice
        return self._out.reformat(rgb, format=self.pix_fmt, interpolation=_EXACT, threads=1)
