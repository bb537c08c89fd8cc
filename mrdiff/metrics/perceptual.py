"""What LPIPS and DISTS have in common: a distance of two images in the features of a network."""

from pathlib import Path
from typing import ClassVar, Self

import torchmetrics
from torch import Tensor, nn

from mrdiff.metrics.backbones import WeightsError, WeightsFile, read_state


class PerceptualDistance(nn.Module):
    """A learned distance of two images, 0 for identical ones. Frozen.

    The network is read from a file; what was learned for the distance ships inside torchmetrics.
    """

    name: ClassVar[str]
    weights: ClassVar[WeightsFile]
    learned: ClassVar[str]  # the file of torchmetrics, from its functional/image
    min_size: ClassVar[int] = 1  # px a side

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """With the network's features from ``path``.

        Raises:
            WeightsError: the file is not usable.
        """
        file = cls.weights.find(path)
        assert file is not None  # it was named
        folder = Path(torchmetrics.__file__).parent / "functional" / "image"
        learned = read_state(folder / cls.learned)
        try:
            return cls(read_state(file), learned)
        except (RuntimeError, KeyError, AttributeError) as error:
            network = cls.weights.network
            raise WeightsError(
                f"{file} does not hold {network}'s `features.*` in torchvision's layout"
            ) from error

    @classmethod
    def find(cls, path: str | Path | None = None) -> Self | None:
        """With the weights that :meth:`.WeightsFile.find` finds; None if there are none.

        Raises:
            WeightsError: a file that was named is missing or not usable.
        """
        file = cls.weights.find(path)
        return None if file is None else cls.from_file(file)

    def forward(self, restored: Tensor, target: Tensor) -> Tensor:
        """Distance ``[B]``, 0 for identical images.

        Args:
            restored: RGB in [0, 1], ``[B, 3, H, W]``, at least ``min_size`` px a side; neither
                clamped nor rounded: pass ``RGB.prepare(image)`` to measure what is saved.
            target: the ground truth, same shape.

        Raises:
            ValueError: shapes differ, are not RGB, or are too small.
        """
        shape = tuple(restored.shape)
        if restored.shape != target.shape or restored.ndim != 4 or shape[1] != 3:
            shapes = f"{shape}, {tuple(target.shape)}"
            raise ValueError(f"{self.name} needs two [B, 3, H, W], got {shapes}")
        if min(shape[-2:]) < self.min_size:
            raise ValueError(f"{self.name} needs at least {self.min_size} px a side, got {shape}")
        return self.distance(restored, target)

    def distance(self, restored: Tensor, target: Tensor) -> Tensor:
        """Of images that suit."""
        raise NotImplementedError
