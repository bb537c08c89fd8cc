"""Pictures of how sure a model is: the standard deviation of a photo's restorations."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from mrdiff.cli.common.heat import heat_map
from mrdiff.photo import PhotoFile, write_photo

__all__ = ["SCALE", "uncertainty_paths", "write_uncertainty"]

SCALE = 0.1  # of the image's range is the brightest colour


def uncertainty_paths(target: Path, output: Path) -> tuple[Path, Path]:
    """Where the numbers and the picture lie that belong to the restored file ``target``."""
    folder = output / "uncertainty" / target.relative_to(output).parent
    return folder / f"{target.name}.tif", folder / f"{target.name}.png"


def write_uncertainty(std: Tensor, target: Path, output: Path) -> None:
    """Write a deviation ``[3, H, W]`` as one number a pixel, and as a picture.

    The TIFF holds the root mean square over the colours as 32-bit floating point, in units of the
    image's range; the PNG shows it from black, 0, to bright yellow, 0.1 and more.

    Raises:
        PhotoError: a file cannot be written.
    """
    numbers, picture = uncertainty_paths(target, output)
    grey = std.square().mean(0, keepdim=True).sqrt()
    write_photo(numbers, grey, PhotoFile(grey, bits=32))
    write_photo(picture, heat_map(grey[0], brightest=SCALE))
