"""What validation by sampling yields: scores under log keys, rows of a grid, panels of a figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from callbacks.pictures import GridRow, Panel, to_pixels

TITLES = {
    "psnr": "PSNR (dB), higher is better",
    "ssim": "SSIM, higher is better",
    "lpips": "LPIPS, lower is better",
}


class Run(NamedTuple):
    """A sampler at a number of network calls."""

    sampler: str
    nfe: int


class Result(NamedTuple):
    """Images [B, 3, H, W] and their scores, a [B] tensor a metric."""

    images: Tensor
    scores: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Names of what is logged. The first sampler has plain keys, others append their name.

    Attributes:
        samplers: at least one.
        nfes: ascending.
    """

    samplers: tuple[str, ...]
    nfes: tuple[int, ...]

    def suffix(self, sampler: str) -> str:
        """What a sampler's keys and tags end with."""
        return "" if sampler == self.samplers[0] else f"/{sampler}"

    def key(self, stage: str, metric: str, run: Run | None) -> str:
        """The key of a metric for a run, or for the degraded input if that is None."""
        if run is None:
            return f"{stage}/{metric}@input"
        return f"{stage}/{metric}@{run.nfe}{self.suffix(run.sampler)}"

    def panels(self, logged: Mapping[str, Tensor], stage: str) -> list[Panel]:
        """Panels for those metrics that were logged."""
        return [
            Panel(
                label=label,
                input_value=float(logged[self.key(stage, metric, None)]),
                curves={
                    sampler: {
                        nfe: float(logged[self.key(stage, metric, Run(sampler, nfe))])
                        for nfe in self.nfes
                    }
                    for sampler in self.samplers
                },
            )
            for metric, label in TITLES.items()
            if self.key(stage, metric, None) in logged
        ]

    def charts(self, metrics: Sequence[str]) -> dict[str, list[str]]:
        """Scalar tags that belong on one chart: a metric at every NFE and of the input."""
        runs = [None, *(Run(sampler, nfe) for sampler in self.samplers for nfe in self.nfes)]
        charts = {
            label: [self.key("val", metric, run) for run in runs]
            for metric, label in TITLES.items()
            if metric in metrics
        }
        return {**charts, "loss": ["train/loss", "val/loss"]}


def _caption(scores: Mapping[str, Tensor], i: int) -> str:
    parts = []
    if "psnr" in scores:
        parts.append(f"{float(scores['psnr'][i]):.2f} dB")
    if "ssim" in scores:
        parts.append(f"{float(scores['ssim'][i]):.3f}")
    return "   ".join(parts)


def grid_rows(names: Sequence[str], gt: Tensor, columns: Sequence[Result]) -> list[GridRow]:
    """Rows of a grid: one column a result with PSNR and SSIM below, the ground truth last.

    Args:
        names: of the first images of the batch; only these make rows.
        gt: [B, 3, H, W] in [0, 1].
        columns: the degraded input and the restored images, of the same batch.
    """
    return [
        GridRow(
            name=name,
            tiles=[*(to_pixels(column.images[i]) for column in columns), to_pixels(gt[i])],
            captions=[*(_caption(column.scores, i) for column in columns), ""],
        )
        for i, name in enumerate(names)
    ]
