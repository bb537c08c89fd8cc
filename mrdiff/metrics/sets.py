"""Distances of two sets of images by the features of a network: FID and KID."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torchmetrics.image.kid import poly_mmd

from mrdiff.metrics.backbones import (
    ALEXNET,
    VGG16,
    WeightsError,
    WeightsFile,
    alexnet,
    read_state,
    vgg16,
)
from mrdiff.metrics.inception import Inception
from mrdiff.metrics.protocol import RGB
from mrdiff.system.names import BACKBONES

# One file, as pytorch-fid and as torch-fidelity call it.
_NAMES = ("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth")
INCEPTION = WeightsFile("FID's Inception", "MRDIFF_INCEPTION_WEIGHTS", _NAMES)
_FILES = {"inception": INCEPTION, "vgg16": VGG16, "alexnet": ALEXNET}
_MIN_SIZES = {"inception": 1, "vgg16": 16, "alexnet": 31}


class _Pooled(nn.Module):
    """The mean over all places of the last features of a network, 256 or 512."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        last: Tensor = self.backbone(images)[-1]
        return last.mean(dim=(2, 3))


_NETWORKS: dict[str, Callable[[Mapping[str, Tensor]], nn.Module]] = {
    "inception": Inception,
    "vgg16": lambda state: _Pooled(vgg16(state)),
    "alexnet": lambda state: _Pooled(alexnet(state)),
}


class Features(nn.Module):
    """A feature vector of each image, by a network whose name is told beside every FID and KID.

    Published FIDs are by ``"inception"``; numbers of different networks cannot be compared.

    Attributes:
        name: of :data:`mrdiff.system.names.BACKBONES`.
        min_size: px a side that images have at least.
    """

    def __init__(self, name: str, file: Path) -> None:
        super().__init__()
        self.name, self.min_size = name, _MIN_SIZES[name]
        try:
            self.network = _NETWORKS[name](read_state(file))
        except (KeyError, RuntimeError, AttributeError, TypeError, ValueError) as error:
            raise WeightsError(f"{file} does not hold the features of {name}") from error

    @classmethod
    def find(cls, backbone: str | None = None, file: str | Path | None = None) -> Self | None:
        """By ``backbone``, whose weights are ``file`` or found; None if there are none.

        Without a name it is the first of :data:`mrdiff.system.names.BACKBONES` that can be had.

        Raises:
            ValueError: an unknown name, or a file without one.
            WeightsError: a file is not usable, or one that was named is missing.
        """
        if backbone is None:
            if file is not None:
                raise ValueError("a file of weights needs the name of its backbone")
            backbone = next((name for name in BACKBONES if _FILES[name].find() is not None), None)
            if backbone is None:
                return None
        if backbone not in BACKBONES:
            raise ValueError(f"unknown backbone {backbone!r}; known: {', '.join(BACKBONES)}")
        found = _FILES[backbone].find(file)
        return None if found is None else cls(backbone, found)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features ``[B, D]``.

        Args:
            images: RGB ``[B, 3, H, W]`` in [0, 1], clamped and rounded to 8 bit first.

        Raises:
            ValueError: they are smaller than ``min_size``.
        """
        if min(images.shape[-2:]) < self.min_size:
            shape = tuple(images.shape)
            raise ValueError(f"{self.name} needs at least {self.min_size} px a side, got {shape}")
        features: Tensor = self.network(RGB.prepare(images))
        return features


def _checked(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise ValueError(f"two sets of features [N, D] with N >= 2 are needed, got {shapes}")
    return a.detach().cpu().double(), b.detach().cpu().double()


def _gaussian(features: Tensor) -> tuple[Tensor, Tensor]:
    """The mean, and a root R of the covariance R'R with at most D rows."""
    mean = features.mean(dim=0)
    centred = (features - mean) / (len(features) - 1) ** 0.5
    return mean, centred if len(centred) <= centred.shape[1] else torch.linalg.qr(centred).R


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Fréchet distance of two sets of features, the FID of Heusel et al. (2017), at least 0.

    Between Gaussians with their means and covariances. It falls as images are added, to one side or
    both, so values are comparable for the same numbers of images alone; published ones are of
    10 000 and more. Of fewer images than there are features the covariances are singular: the value
    is still defined and orders runs on the same images, but says little of the distributions.

    Args:
        a: ``[N, D]``, N >= 2.
        b: ``[M, D]``, M >= 2.

    Returns:
        The distance, nan if any feature is not finite.

    Raises:
        ValueError: these are not such sets.
    """
    a, b = _checked(a, b)
    if not (a.isfinite().all() and b.isfinite().all()):
        return math.nan
    (mean_a, root_a), (mean_b, root_b) = _gaussian(a), _gaussian(b)
    # With covariances A'A and B'B the trace of the root of their product is the sum of the singular
    # values of AB'. These are exact for singular covariances too; the eigenvalues of the product,
    # of which torchmetrics takes the roots, keep half of the digits.
    cross = torch.linalg.svdvals(root_a @ root_b.mT).sum()
    spread = root_a.square().sum() + root_b.square().sum()
    return float(((mean_a - mean_b).square().sum() + spread - 2 * cross).clamp(min=0))


def kernel_distance(
    a: Tensor, b: Tensor, *, subset: int = 1000, subsets: int = 100, seed: int = 0
) -> float:
    """Kernel distance of two sets of features, the KID of Binkowski et al. (2018).

    The squared maximum mean discrepancy under the kernel (x'y / D + 1)^3, without bias: its
    expectation does not depend on the number of images, and it may be below 0.

    Args:
        a: ``[N, D]``, N >= 2.
        b: ``[M, D]``, M >= 2.
        subset: images of each side that are compared at a time, at most.
        subsets: of which the mean is taken; one, if it is all there is.
        seed: of the choice of subsets.

    Raises:
        ValueError: these are not such sets.
    """
    a, b = _checked(a, b)
    size = min(len(a), len(b), subset)
    generator = torch.Generator().manual_seed(seed)

    def chosen(features: Tensor) -> Tensor:
        return features[torch.randperm(len(features), generator=generator)[:size]]

    count = 1 if len(a) == len(b) == size else subsets
    return float(sum(float(poly_mmd(chosen(a), chosen(b))) for _ in range(count)) / count)


DISTANCES = {"fid": frechet_distance, "kid": kernel_distance}
