"""Named measuring protocols: what exactly is compared when a PSNR or an SSIM is quoted."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from mrdiff.photo.channels import LUMA


def same_channels(image: Tensor) -> Tensor:
    """All channels, measured together."""
    return image


def luma(image: Tensor) -> Tensor:
    """BT.601 luma ``[B, 1, H, W]`` in [16/255, 235/255] of RGB ``[B, 3, H, W]`` in [0, 1].

    In studio swing, as MATLAB's ``rgb2ycbcr`` and IR-SDE's scripts have it. Not rounded again, as
    in IR-SDE (MATLAB rounds uint8). Errors shrink by 219/255 while the data range stays 1: a grey
    error scores 1.32 dB more on Y than on RGB.

    Raises:
        ValueError: there are not three channels.
    """
    if image.shape[-3] != 3:
        raise ValueError(f"luma needs RGB images [B, 3, H, W], got {tuple(image.shape)}")
    red, green, blue = image.split(1, dim=-3)
    r, g, b = (weight * 219 / 255 for weight in LUMA)
    return r * red + g * green + b * blue + 16 / 255


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How two images are made comparable before a metric is computed.

    Attributes:
        name: short name, used in log keys.
        channels: maps ``[B, C, H, W]`` in [0, 1] to the channels that are measured.
        crop_border: pixels dropped on each side first; super-resolution papers drop the scale.
        levels: grey steps to which values are rounded after clamping to [0, 1]: 255 for 8-bit
            files, so that a number computed in memory equals that of the saved PNG; None leaves
            values unrounded.
    """

    name: str
    channels: Callable[[Tensor], Tensor] = same_channels
    crop_border: int = 0
    levels: int | None = 255

    def prepare(self, image: Tensor) -> Tensor:
        """``[B, C, H, W]``, clamped to [0, 1], rounded, cropped and converted, float32 or wider.

        Raises:
            ValueError: the image is not four-dimensional, or not larger than the crop.
        """
        if image.ndim != 4:
            raise ValueError(f"images must be [B, C, H, W], got {tuple(image.shape)}")
        border = self.crop_border
        if min(image.shape[-2:]) <= 2 * border:
            raise ValueError(f"nothing is left of {tuple(image.shape)} after cropping {border} px")
        image = image if image.itemsize > 4 else image.float()
        image = image.clamp(0.0, 1.0)
        if self.levels is not None:
            image = (image * self.levels).round() / self.levels
        if border:
            image = image[..., border:-border, border:-border]
        return self.channels(image)

    def describe(self) -> dict[str, str | int | None]:
        """The protocol in plain values, for checkpoints."""
        return {"name": self.name, "crop_border": self.crop_border, "levels": self.levels}


RGB = Protocol(name="rgb")
Y = Protocol(name="y", channels=luma)
# The test scripts of IR-SDE drop as many pixels at each side as the scale of their configuration,
# which for anything but super-resolution is 1, and measure the 8-bit pictures.
IR_SDE = Protocol(name="ir-sde", crop_border=1)
IR_SDE_Y = Protocol(name="ir-sde-y", channels=luma, crop_border=1)
# The protocols of RGB and of luma.
PROTOCOLS = {"standard": (RGB, Y), "ir-sde": (IR_SDE, IR_SDE_Y)}
