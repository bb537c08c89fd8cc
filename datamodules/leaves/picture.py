"""Dead-leaves pictures: opaque shapes of all sizes that cover one another, like things in a photo.

Occlusion with radii of density r^-3 gives the scale invariance, the 1/f spectrum and the edges of
natural images (Matheron 1968; Lee, Mumford and Huang, "Occlusion Models for Natural Images",
IJCV 2001), and networks trained on it restore real photographs nearly as well as those trained on
photographs (Achddou, Gousseau and Ladjal, "Synthetic images as a regularity prior for image
restoration neural networks", SSVM 2021). What is here beyond plain discs is listed in
:class:`datamodules.leaves.look.LeafLook`. One picture a call, without torch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datamodules.leaves.camera import developed, highlights, shadows
from datamodules.leaves.look import LOOK, LeafLook, streams
from datamodules.leaves.scenery import bricks, sky, text, wires
from datamodules.leaves.surfaces import Leaves, ground
from datamodules.leaves.textures import Palette

_SCENERY = ("sky", "bricks", "wires", "text", "shadows", "highlights")
_MARGIN = 8  # drawn and cut off, so that leaves and filters have no border in the picture


def render(seed: int, index: int, size: int, look: LeafLook = LOOK) -> NDArray[np.uint8]:
    """One picture, RGB ``[size, size, 3]`` uint8: a function of the arguments alone."""
    stream, work = streams(seed, index), size + 2 * _MARGIN
    palette = Palette(look, stream)
    leaves = Leaves(look, stream, work, palette)
    canvas = ground(look, stream, palette, leaves, work)
    rng = stream("scenery")  # what is there, and how many of the leaves lie below it
    has = {name: rng.random() for name in _SCENERY}
    below, above = (np.sort(rng.uniform(0.4, 1, 2)) * len(leaves)).astype(int).tolist()
    leaves.lay(canvas, 0, below)
    if has["sky"] < look.sky:
        canvas = sky(stream, canvas, palette)
    if has["bricks"] < look.bricks:
        canvas = bricks(look, stream, canvas, palette)
    leaves.lay(canvas, below, above)
    if has["text"] < look.text:
        canvas = text(stream, canvas, palette)
    if has["wires"] < look.wires:
        canvas = wires(stream, canvas, palette)
    leaves.lay(canvas, above, len(leaves))
    if has["shadows"] < look.shadows:
        canvas = shadows(stream, canvas)
    if has["highlights"] < look.highlights:
        canvas = highlights(stream, canvas)
    picture = developed(look, stream, canvas)[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    pixels = (picture.clip(0, 1) * 255).round().astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))
