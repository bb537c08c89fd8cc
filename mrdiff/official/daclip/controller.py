"""DA-CLIP's image controller (Luo et al., ICLR 2024): photos to the features of a restorer."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from mrdiff.official.daclip.towers import VisionTower
from mrdiff.official.daclip.weights import fill, read_daclip, vision_tower
from mrdiff.photo import from_pil, to_pil

__all__ = ["ImageController", "prepare"]

# Of CLIP's training images.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


def prepare(image: Tensor, side: int) -> Tensor:
    """RGB ``[3, H, W]`` in [0, 1] as CLIP's normalised pixels ``[3, side, side]``, on the CPU.

    In 8 bits and by Pillow, as in CLIP's training: torch resizes a little differently.
    """
    photo = to_pil(image)
    shorter = min(photo.size)
    width, height = (int(side * length / shorter) for length in photo.size)
    photo = photo.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - side) / 2), round((height - side) / 2)
    photo = photo.crop((left, top, left + side, top + side))
    mean, std = torch.tensor(_MEAN), torch.tensor(_STD)
    return (from_pil(photo) - mean[:, None, None]) / std[:, None, None]


class ImageController(nn.Module):
    """What a photo shows and what degraded it.

    A copy ``control`` of CLIP's vision tower ``visual`` reads the degradation. What its blocks
    return goes through linear layers, zero when training began, into the tower itself, so that
    this sees the content alone.
    """

    def __init__(self, visual: VisionTower, control: VisionTower) -> None:
        super().__init__()
        self.visual, self.control = visual, control
        width, layers = len(visual.class_embedding), len(visual.transformer.resblocks)
        self.zeros = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    @classmethod
    def from_file(cls, path: Path | str) -> ImageController:
        """From a DA-CLIP checkpoint, such as ``daclip_ViT-B-32.pt``; DACLIPError if it is none."""
        weights, where = read_daclip(path), str(path)
        with torch.device("meta"):
            made = cls(*(vision_tower(weights, "clip.visual.", where) for _ in range(2)))
        return fill(made, weights, _official, where)

    @property
    def features(self) -> dict[str, int]:
        width = int(self.visual.proj.shape[1])
        return {"text": width, "image": width}

    @property
    def side(self) -> int:
        """Height and width of the pixels that it sees."""
        grid = (len(self.visual.positional_embedding) - 1) ** 0.5
        return round(grid) * self.visual.conv1.kernel_size[0]

    def encode(self, pixels: Tensor) -> dict[str, Tensor]:
        """The features of normalised pixels ``[B, 3, side, side]``."""
        degradation, states = self.control(pixels)
        hidden = [zero(state) for zero, state in zip(self.zeros, states, strict=True)]
        # The first block of the tower gets the last one's, as in the official code.
        content, _ = self.visual(pixels, hidden[::-1])
        return {"text": degradation, "image": content}

    @torch.no_grad()
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """``text``, the degradation, and ``image``, the content, of RGB ``[B, 3, H, W]`` in [0, 1].

        Both ``[B, D]``, not normalised, on the device of the images; the weights move there. Each
        image goes by itself: the last bits depend on how many go at once.
        """
        self.to(images.device)
        pixels = (prepare(image, self.side)[None].to(images.device) for image in images)
        seen = [self.encode(one) for one in pixels]
        return {name: torch.cat([features[name] for features in seen]) for name in self.features}


def _official(name: str) -> str:
    """The official name of one of the controller's weights."""
    part, _, rest = name.partition(".")
    if part == "visual":
        return f"clip.visual.{rest}"
    if part == "zeros":
        return f"visual_control.transformer.zero_modules.{rest}"
    # There the copy's transformer is wrapped in another module.
    return "visual_control." + rest.replace("transformer.", "transformer.transformer.", 1)
