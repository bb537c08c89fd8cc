"""LPIPS v0.1 on AlexNet features (Zhang et al., CVPR 2018), in plain torch, without torchvision.

The five linear layers ship inside torchmetrics. The AlexNet features are read from a file that is
already there, and nothing here ever downloads one. To put it where it is found, once:
``torch.hub.load_state_dict_from_url(
"https://download.pytorch.org/models/alexnet-owt-7be5be79.pth")``.
"""

import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch
import torchmetrics
from torch import Tensor, nn

WEIGHTS_VARIABLE = "MRDIFF_LPIPS_WEIGHTS"
HUB_FILE = "alexnet-owt-7be5be79.pth"
MIN_SIZE = 31  # smaller images leave nothing after AlexNet's two poolings

# ImageNet mean and deviation for inputs in [-1, 1], as the LPIPS authors' scaling layer has them.
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_CHANNELS = (64, 192, 384, 256, 256)


class LPIPSWeightsError(ValueError):
    """The file given for LPIPS is missing, unreadable or not AlexNet's features."""


def find_lpips_weights(path: str | Path | None = None) -> Path | None:
    """The AlexNet features on this machine: ``path``, MRDIFF_LPIPS_WEIGHTS or torch hub's cache.

    None if nothing was named and the cache has none.

    Raises:
        LPIPSWeightsError: ``path`` or the variable names a file that does not exist.
    """
    named = path or os.environ.get(WEIGHTS_VARIABLE)
    if named:
        file = Path(named).expanduser()
        if not file.is_file():
            origin = "lpips weights" if path else WEIGHTS_VARIABLE
            raise LPIPSWeightsError(f"{origin}: no such file: {file}")
        return file
    cached = Path(torch.hub.get_dir()) / "checkpoints" / HUB_FILE
    return cached if cached.is_file() else None


def _load_tensors(file: Path) -> dict[str, Tensor]:
    # One of the files was saved from a GPU.
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise LPIPSWeightsError(f"cannot read LPIPS weights from {file}: {reason}") from error
    if not isinstance(state, dict):
        raise LPIPSWeightsError(f"{file} holds no state dict with AlexNet's features")
    return state


def _alexnet_features() -> nn.Sequential:
    """AlexNet's convolutions up to the fifth ReLU (Krizhevsky 2014, "One weird trick").

    Numbered so that the keys are torchvision's ``features.N``.
    """
    c1, c2, c3, c4, c5 = _CHANNELS
    layers = [nn.Conv2d(3, c1, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2)]
    layers += [nn.Conv2d(c1, c2, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2)]
    for inputs, outputs in ((c2, c3), (c3, c4), (c4, c5)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)


_STAGES = tuple(pairwise((0, 2, 5, 8, 10, 12)))  # each ends with a ReLU whose output is compared


def _unit(features: Tensor) -> Tensor:
    """Every pixel's feature vector at length one (Zhang et al., Eq. 1)."""
    return features / (features.square().sum(dim=1, keepdim=True) + 1e-8).sqrt()


class LPIPS(nn.Module):
    """Learned perceptual distance of two images; lower is closer. Frozen, in evaluation mode.

    Args:
        features: AlexNet in torchvision's key layout; keys other than ``features.*`` are ignored.
        linear: ``lin0.model.1.weight`` ... ``lin4.model.1.weight``, each ``[1, C, 1, 1]``.

    Raises:
        RuntimeError, KeyError: keys are missing or shapes differ.
    """

    def __init__(self, features: Mapping[str, Tensor], linear: Mapping[str, Tensor]) -> None:
        super().__init__()
        with torch.device("meta"):  # no random initial weights: the global generator stays as it is
            self.features = _alexnet_features()
        prefix = "features."
        self.features.load_state_dict(
            {k[len(prefix) :]: v.float() for k, v in features.items() if k.startswith(prefix)},
            assign=True,
        )
        for i, channels in enumerate(_CHANNELS):
            weight = linear[f"lin{i}.model.1.weight"].reshape(1, channels, 1, 1)
            self.register_buffer(f"linear{i}", weight.float(), persistent=False)
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def from_file(cls, path: str | Path) -> "LPIPS":
        """With the AlexNet features from ``path`` and the linear layers from torchmetrics.

        Raises:
            LPIPSWeightsError: the file is not usable.
        """
        file = Path(path).expanduser()
        if not file.is_file():
            raise LPIPSWeightsError(f"lpips weights: no such file: {file}")
        package = Path(torchmetrics.__file__).parent
        linear = _load_tensors(package / "functional" / "image" / "lpips_models" / "alex.pth")
        try:
            return cls(_load_tensors(file), linear)
        except (RuntimeError, KeyError, AttributeError) as error:
            raise LPIPSWeightsError(
                f"{file} does not hold AlexNet's `features.*` in torchvision's layout"
            ) from error

    @classmethod
    def find(cls, path: str | Path | None = None) -> "LPIPS | None":
        """With the weights of :func:`find_lpips_weights`; None if there are none.

        Raises:
            LPIPSWeightsError: a file that was named is missing or not usable.
        """
        file = find_lpips_weights(path)
        return None if file is None else cls.from_file(file)

    def train(self, mode: bool = True) -> "LPIPS":
        """Stay in evaluation mode, whatever the module this one is part of does."""
        return super().train(False)

    def forward(self, restored: Tensor, target: Tensor) -> Tensor:
        """Distance ``[B]``, 0 for identical images.

        Args:
            restored: RGB in [0, 1], ``[B, 3, H, W]``, at least 31 px a side; neither clamped nor
                rounded: pass ``RGB.prepare(image)`` to measure what is saved.
            target: the ground truth, same shape.

        Raises:
            ValueError: shapes differ, are not RGB, or are too small.
        """
        shape = tuple(restored.shape)
        if restored.shape != target.shape or restored.ndim != 4 or shape[1] != 3:
            raise ValueError(f"LPIPS needs two [B, 3, H, W], got {shape}, {tuple(target.shape)}")
        if min(shape[-2:]) < MIN_SIZE:
            raise ValueError(f"LPIPS needs at least {MIN_SIZE} px a side, got {shape}")
        a, b = self._normalize(restored), self._normalize(target)
        distance = restored.new_zeros(shape[0], dtype=torch.float32)
        for i, (start, stop) in enumerate(_STAGES):
            a, b = self.features[start:stop](a), self.features[start:stop](b)
            weighted = (_unit(a) - _unit(b)).square() * self.get_buffer(f"linear{i}")
            distance = distance + weighted.sum(dim=1).mean(dim=(-2, -1))
        return distance

    def _normalize(self, image: Tensor) -> Tensor:
        shift, scale = self.get_buffer("shift"), self.get_buffer("scale")
        return (2.0 * image.float() - 1.0 - shift) / scale
