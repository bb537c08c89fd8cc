"""DISTS on VGG16 features (Ding et al., TPAMI 2020), in plain torch, without torchvision."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from mrdiff.metrics.backbones import VGG16, vgg16
from mrdiff.metrics.perceptual import PerceptualDistance

_CHANNELS = (3, 64, 128, 256, 512, 512)
_C = 1e-6


class _L2Pool(nn.Module):
    """The root of the mean square under a Hanning window of 3 px, at every second pixel."""

    def forward(self, values: Tensor) -> Tensor:
        line = values.new_tensor((0.25, 0.5, 0.25))
        channels = values.shape[1]
        window = torch.outer(line, line).expand(channels, 1, 3, 3)
        power = functional.conv2d(values.square(), window, stride=2, padding=1, groups=channels)
        return (power + 1e-12).sqrt()


class DISTS(PerceptualDistance):
    """Structure and texture similarity as a distance: 0 for identical images, lower is closer.

    It compares means (texture) and covariances (structure) of whole feature maps, so textures that
    look alike are near although their pixels differ. Images are measured in the size they have; the
    authors' own script first makes the shorter side 256 px.

    Args:
        features: VGG16 in torchvision's key layout; keys other than ``features.*`` are ignored.
        learned: ``alpha`` and ``beta``, ``[1, 1475, 1, 1]`` each: weights of texture and structure.

    Raises:
        RuntimeError, KeyError: keys are missing or shapes differ.
    """

    name = "DISTS"
    weights = VGG16
    learned = "dists_models/weights.pt"

    def __init__(self, features: Mapping[str, Tensor], learned: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.backbone = vgg16(features, pool=_L2Pool)
        alpha, beta = (learned[key].float().reshape(sum(_CHANNELS)) for key in ("alpha", "beta"))
        whole = alpha.sum() + beta.sum()
        self.register_buffer("texture", alpha / whole, persistent=False)
        self.register_buffer("structure", beta / whole, persistent=False)

    def distance(self, restored: Tensor, target: Tensor) -> Tensor:
        """One minus the weighted similarities of all channels, those of the image among them."""
        maps = [[image.float(), *self.backbone(image)] for image in (restored, target)]
        textures, structures = [], []
        for a, b in zip(*maps, strict=True):
            (mean_a, mean_b), (a, b) = zip(*map(_centred, (a, b)), strict=True)
            textures.append((2 * mean_a * mean_b + _C) / (mean_a.square() + mean_b.square() + _C))
            covariance, variances = (a * b).mean((2, 3)), (a.square() + b.square()).mean((2, 3))
            structures.append((2 * covariance + _C) / (variances + _C))
        texture = torch.cat(textures, dim=1) @ self.get_buffer("texture")
        return 1 - texture - torch.cat(structures, dim=1) @ self.get_buffer("structure")


def _centred(values: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of each channel ``[B, C]``, and what deviates from it."""
    mean = values.mean((2, 3))
    return mean, values - mean[..., None, None]
