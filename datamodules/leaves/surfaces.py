"""What lies on a dead-leaves picture and how it is laid: colours, textures, shading of leaves."""

from __future__ import annotations

import numpy as np

from datamodules.leaves.look import LeafLook, Stream
from datamodules.leaves.shapes import bent, coverage, gathered, outlines_of, radii_of
from datamodules.leaves.textures import LUMA, Array, Palette, texture_pool

_DETAIL = 20.0  # pixels: leaves smaller than that are details of what they lie on
_TINY = 3.0  # pixels: leaves smaller than that have no surface to speak of


class Leaves:
    """All leaves of one picture, drawn beforehand and laid on a canvas one after the other."""

    def __init__(self, look: LeafLook, stream: Stream, size: int, palette: Palette) -> None:
        places = stream("places")
        self.radii = radii_of(look, places, size)
        count = len(self.radii)
        self.centres = places.uniform(0, size, (count, 2)).astype(np.float32)
        self.kept = np.flatnonzero(gathered(look, stream, self.centres, self.radii, size))
        self.outlines = outlines_of(look, stream, self.radii)
        self.colours = palette.near(stream("colours"), count)
        self.shift = bent(look, stream, size)
        self.pool = texture_pool(look, stream, size)
        rng = stream("texture")
        self.strength = (look.texture * rng.beta(1, 2, count)).astype(np.float32)
        self.choice = rng.integers(0, max(1, len(self.pool)), count)
        slope = look.shading * stream("shading").standard_normal((count, 2))
        self.slope = (slope / self.radii[:, None]).astype(np.float32)
        rng = stream("motley")
        across = rng.standard_normal((count, 3)).astype(np.float32)
        across -= (across @ LUMA)[:, None]  # of colour alone: brightness stays
        across *= look.motley * rng.beta(1, 2, (count, 1)).astype(np.float32)
        self.across = across[..., None, None]
        rng = stream("harmony")
        belongs = look.harmony * rng.uniform(0.5, 1, count) * np.exp(-self.radii / _DETAIL)
        self.belongs = belongs.astype(np.float32)
        self.gain = np.exp(rng.normal(0, 0.4, count)).astype(np.float32)
        self.offset = rng.normal(0, 0.12, count).astype(np.float32)

    def __len__(self) -> int:
        return len(self.kept)

    def lay(self, canvas: Array, first: int, last: int) -> None:
        """Lay some of the leaves on the canvas ``[3, S, S]``, in place."""
        size = canvas.shape[-1]
        for i in self.kept[first:last].tolist():
            radius, (cy, cx) = self.outlines[i].radius, self.centres[i].tolist()
            reach = 1.8 * radius + 2
            ys = slice(max(0, int(cy - reach)), min(size, int(cy + reach) + 1))
            xs = slice(max(0, int(cx - reach)), min(size, int(cx + reach) + 1))
            y = np.arange(ys.start, ys.stop, dtype=np.float32)[:, None] - cy
            x = np.arange(xs.start, xs.stop, dtype=np.float32) - cx
            colour = self._colour(i, canvas[:, int(cy), int(cx), None, None])
            if radius > _TINY:
                colour = colour * self._surface(i, y, x, ys, xs)
                if self.shift is not None:  # only how the shift varies over the leaf bends it
                    dy, dx = self.shift[:, ys, xs] - self.shift[:, int(cy), int(cx), None, None]
                    y, x = y + dy, x + dx
            part = canvas[:, ys, xs]
            part += coverage(self.outlines[i], y, x) * (colour - part)

    def _colour(self, i: int, below: Array) -> Array:
        near = below * self.gain[i] + self.offset[i]
        return self.colours[i] + self.belongs[i] * (near - self.colours[i])

    def _surface(self, i: int, y: Array, x: Array, ys: slice, xs: slice) -> Array:
        """What the colour of leaf ``i`` is multiplied by, ``[H, W]`` or ``[3, H, W]``."""
        shade = 1 + self.slope[i, 0] * y + self.slope[i, 1] * x
        if not self.pool:
            return shade
        shade *= 1 + self.strength[i] * self.pool[self.choice[i]][ys, xs]
        return shade * (1 + self.across[i] * self.pool[self.choice[i] - 1][ys, xs])


def ground(look: LeafLook, stream: Stream, palette: Palette, leaves: Leaves, size: int) -> Array:
    """What lies below all leaves: a gradient between two colours, textured; ``[3, S, S]``."""
    rng = stream("ground")
    first, second = palette.near(rng, 2)
    ramp = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    change = second - first if look.shading else np.float32(0)
    canvas = np.repeat(first + change * ramp, size, 2)
    if leaves.pool:
        canvas *= 1 + np.float32(look.texture * rng.beta(1, 2)) * leaves.pool[0]
    return canvas
