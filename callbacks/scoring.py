"""Measuring restored images by those metrics that can be measured here."""

from collections.abc import Sequence

from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, device

from mrdiff.metrics import LPIPS, find_lpips_weights, measurable, measure
from mrdiff.system.names import VALIDATION_METRICS

Scores = dict[str, Tensor]  # of images: a tensor ``[B]`` a metric


class Scorer:
    """Metrics by name, LPIPS if its weights are on this machine.

    Raises:
        ValueError: for an unknown metric.
    """

    def __init__(self, metrics: Sequence[str], lpips_weights: str | None) -> None:
        unknown = [name for name in metrics if name not in VALIDATION_METRICS]
        if unknown:
            known = ", ".join(VALIDATION_METRICS)
            raise ValueError(f"unknown metrics {unknown}; known: {known}")
        self._metrics, self._weights = metrics, lpips_weights
        self._lpips: LPIPS | None = None
        self._told = False  # that some images are too small

    def expected(self) -> list[str]:
        """What will be measured, before :meth:`load`."""
        found = find_lpips_weights(self._weights) if "lpips" in self._metrics else None
        return [name for name in self._metrics if name != "lpips" or found is not None]

    def measured(self) -> list[str]:
        return [name for name in self._metrics if name != "lpips" or self._lpips is not None]

    def load(self) -> None:
        """Read LPIPS, if it is wanted, once."""
        if "lpips" not in self._metrics or self._lpips is not None:
            return
        self._lpips = LPIPS.find(self._weights)
        if self._lpips is None:
            rank_zero_info(
                "LPIPS is not logged: no AlexNet weights here (see mrdiff.metrics.lpips)"
            )

    def to(self, device: device) -> None:
        if self._lpips is not None:
            self._lpips.to(device)

    def scores(self, image: Tensor, gt: Tensor) -> Scores:
        """Every metric that is measured; one for which the images are too small is empty."""
        names, (height, width) = self.measured(), gt.shape[-2:]
        fitting = measurable(names, height, width)
        if not self._told and len(fitting) < len(names):
            self._told = True
            left_out = ", ".join(name for name in names if name not in fitting)
            rank_zero_info(f"note: validation images of {height}x{width} are without {left_out}")
        scores = measure(image, gt, names=fitting, lpips=self._lpips)
        return {name: scores.get(name, gt.new_zeros(0)) for name in names}
