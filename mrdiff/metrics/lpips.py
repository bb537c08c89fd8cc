"""LPIPS v0.1 on AlexNet features (Zhang et al., CVPR 2018), in plain torch, without torchvision."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mrdiff.metrics.backbones import ALEXNET, alexnet
from mrdiff.metrics.perceptual import PerceptualDistance

_CHANNELS = (64, 192, 384, 256, 256)


def _unit(features: Tensor) -> Tensor:
    """Every pixel's feature vector at length one (Zhang et al., Eq. 1)."""
    return features / (features.square().sum(dim=1, keepdim=True) + 1e-8).sqrt()


class LPIPS(PerceptualDistance):
    """Learned perceptual distance of two images; lower is closer. Frozen.

    Args:
        features: AlexNet in torchvision's key layout; keys other than ``features.*`` are ignored.
        linear: ``lin0.model.1.weight`` ... ``lin4.model.1.weight``, each ``[1, C, 1, 1]``.

    Raises:
        RuntimeError, KeyError: keys are missing or shapes differ.
    """

    name = "LPIPS"
    weights = ALEXNET
    learned = "lpips_models/alex.pth"
    min_size = 31  # smaller images leave nothing after AlexNet's two poolings

    def __init__(self, features: Mapping[str, Tensor], linear: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.backbone = alexnet(features)
        for i, channels in enumerate(_CHANNELS):
            weight = linear[f"lin{i}.model.1.weight"].reshape(1, channels, 1, 1)
            self.register_buffer(f"linear{i}", weight.float(), persistent=False)

    def distance(self, restored: Tensor, target: Tensor) -> Tensor:
        """Of unit features, weighted by channel, over all pixels and stages."""
        result = restored.new_zeros(len(restored), dtype=torch.float32)
        pairs = zip(self.backbone(restored), self.backbone(target), strict=True)
        for i, (a, b) in enumerate(pairs):
            weighted = (_unit(a) - _unit(b)).square() * self.get_buffer(f"linear{i}")
            result = result + weighted.sum(dim=1).mean(dim=(-2, -1))
        return result
