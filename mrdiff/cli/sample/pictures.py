"""Pictures beside the restored photos: before and after, and how sure the model is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from mrdiff.cli.common.jobs import Job
from mrdiff.cli.common.targets import alike
from mrdiff.photo import PhotoFile, read_rgb, write_image, write_photo
from mrdiff.photo.sheets import heat_map, side_by_side

__all__ = ["comparison_paths", "trajectory_folder", "uncertainty_paths"]
__all__ += ["write_comparison", "write_uncertainty"]

_SCALE = 0.1  # of the image's range is the brightest colour of a deviation


def comparison_paths(jobs: Sequence[Job], output: Path) -> dict[Job, Path]:
    """Where the side-by-side picture of each of all ``jobs`` is written: ``output/compare/…``.

    All are PNG: ``a.png`` for ``a.jpg``, but ``a.jpg.png`` if there is an ``a.png`` as well.
    """
    targets = {job: job.target.relative_to(output) for job in jobs}
    whole = {job: target.with_name(f"{target.name}.png") for job, target in targets.items()}
    short = {job: target.with_suffix(".png") for job, target in targets.items()}
    taken = Counter(alike(str(name)) for name in (*short.values(), *whole.values()))
    free = {job: taken[alike(str(name))] == 1 for job, name in short.items()}
    names = {job: short[job] if free[job] else whole[job] for job in jobs}
    return {job: output / "compare" / name for job, name in names.items()}


def trajectory_folder(job: Job, output: Path) -> Path:
    """Where the pictures of the way to a restored photo are written."""
    return output / "trajectory" / job.target.relative_to(output)


def write_comparison(job: Job, path: Path) -> None:
    """Degraded, restored and, where there is one, the reference."""
    files = {"degraded": job.source, "restored": job.target, "reference": job.reference}
    images = {name: read_rgb(file) for name, file in files.items() if file is not None}
    write_image(path, side_by_side(list(images.values()), list(images)))


def uncertainty_paths(target: Path, output: Path) -> tuple[Path, Path]:
    """The TIFF and the PNG of a restored file's deviation."""
    folder = output / "uncertainty" / target.relative_to(output).parent
    return folder / f"{target.name}.tif", folder / f"{target.name}.png"


def write_uncertainty(std: Tensor, target: Path, output: Path) -> None:
    """Write the deviation ``[3, H, W]`` of the restored file ``target`` into output/uncertainty.

    The TIFF holds the root mean square over the colours as 32-bit floating point, in units of the
    image's range; the PNG shows it from black, 0, to bright yellow, 0.1 and more.
    """
    numbers, picture = uncertainty_paths(target, output)
    grey = std.square().mean(0, keepdim=True).sqrt()
    write_photo(numbers, grey, PhotoFile(grey, bits=32, sample="float"))
    write_image(picture, heat_map(grey[0], brightest=_SCALE))
