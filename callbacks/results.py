"""What validation by sampling yields: scores under log keys, rows of a grid, panels of a figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from torch import Tensor

from callbacks.pictures import GridRow, Panel, to_pixels
from mrdiff.system.names import VALIDATION_METRICS, metric_label

CHARTED = [name for name in VALIDATION_METRICS if not name.endswith("_y")]


class SamplerAt(NamedTuple):
    """A sampler at a number of network calls."""

    sampler: str
    nfe: int


class Result(NamedTuple):
    """Images ``[B, 3, H, W]`` and their scores, a ``[B]`` tensor a metric."""

    images: Tensor
    scores: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Names of what is logged. The first sampler has plain keys, others append their name."""

    samplers: tuple[str, ...]
    nfes: tuple[int, ...]  # ascending

    @property
    def runs(self) -> list[SamplerAt]:
        """Every sampler at every NFE."""
        return [SamplerAt(*run) for run in product(self.samplers, self.nfes)]

    def suffix(self, sampler: str) -> str:
        """What a sampler's keys and tags end with."""
        return "" if sampler == self.samplers[0] else f"/{sampler}"

    def key(self, stage: str, metric: str, run: SamplerAt | None) -> str:
        """The key of a metric for a run, or for the degraded input if that is None."""
        if run is None:
            return f"{stage}/{metric}@input"
        return f"{stage}/{metric}@{run.nfe}{self.suffix(run.sampler)}"

    def panels(
        self, logged: Mapping[str, Tensor], stage: str, runs: Sequence[SamplerAt]
    ) -> list[Panel]:
        """Panels for those metrics that were logged."""
        panels = []
        for metric in CHARTED:
            of_input = logged.get(self.key(stage, metric, None))
            if of_input is None or bool(of_input.isnan()):
                continue
            curves: dict[str, dict[int, float]] = {run.sampler: {} for run in runs}
            for run in runs:
                curves[run.sampler][run.nfe] = float(logged[self.key(stage, metric, run)])
            panels.append(
                Panel(label=metric_label(metric), input_value=float(of_input), curves=curves)
            )
        return panels

    def charts(self, metrics: Sequence[str], runs: Sequence[SamplerAt]) -> dict[str, list[str]]:
        """Scalar tags that belong on one chart: a metric at every NFE and of the input."""
        charts = {
            metric_label(metric): [self.key("val", metric, run) for run in (None, *runs)]
            for metric in CHARTED
            if metric in metrics
        }
        return {**charts, "loss": ["train/loss", "val/loss"]}


def _caption(scores: Mapping[str, Tensor], i: int) -> str:
    formats = {"psnr": "{:.2f} dB", "ssim": "{:.3f}"}
    return "   ".join(
        formats[m].format(float(scores[m][i])) for m in formats if len(scores.get(m, ()))
    )


def grid_rows(names: Sequence[str], gt: Tensor, columns: Sequence[Result]) -> list[GridRow]:
    """Rows of a grid for the first images of a batch: a column a result, the ground truth last."""
    return [
        GridRow(
            name=name,
            tiles=[*(to_pixels(column.images[i]) for column in columns), to_pixels(gt[i])],
            captions=[*(_caption(column.scores, i) for column in columns), ""],
        )
        for i, name in enumerate(names)
    ]
