"""Side-by-side pictures: degraded, restored and, where there is one, the reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mrdiff.cli.common.jobs import Job
from mrdiff.photo import read_rgb, write_image
from mrdiff.photo.comparison import side_by_side

__all__ = ["comparison_paths", "write_comparison"]


def comparison_paths(jobs: Sequence[Job], output: Path) -> dict[Job, Path]:
    """Where the side-by-side picture of each of all ``jobs`` is written: ``output/compare/…``.

    All are PNG: ``a.png`` for ``a.jpg``, but ``a.jpg.png`` if there is an ``a.png`` as well.
    """
    targets = {job: job.target.relative_to(output) for job in jobs}
    whole = {job: target.with_name(f"{target.name}.png") for job, target in targets.items()}
    short = {job: target.with_suffix(".png") for job, target in targets.items()}
    taken = Counter((*short.values(), *whole.values()))
    names = {job: short[job] if taken[short[job]] == 1 else whole[job] for job in jobs}
    return {job: output / "compare" / name for job, name in names.items()}


def write_comparison(job: Job, path: Path) -> None:
    """Write the comparison of a job that is done to ``path``.

    Raises:
        PhotoError: one of the files cannot be read, or the picture cannot be written.
    """
    paths = {"degraded": job.source, "restored": job.target}
    if job.reference is not None:
        paths["reference"] = job.reference
    picture = side_by_side([read_rgb(path) for path in paths.values()], list(paths))
    write_image(path, picture)
