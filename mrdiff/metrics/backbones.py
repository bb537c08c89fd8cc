"""Networks trained on ImageNet, whose features are compared: AlexNet and VGG16 in plain torch.

Their weights are read from files that are already there, and nothing here ever downloads one.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# Of ImageNet's photos in [0, 1], as torchvision's networks are given them.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
_PREFIX = "features."


class WeightsError(ValueError):
    """The file given for a metric's network is missing, unreadable or not that network's."""


@dataclass(frozen=True)
class WeightsFile:
    """Where a network's weights may be.

    Attributes:
        network: what it is called.
        variable: of the environment, that names the file.
        cached: names that the file may have in torch hub's cache.
    """

    network: str
    variable: str
    cached: tuple[str, ...]

    def find(self, path: str | Path | None = None) -> Path | None:
        """``path``, what the variable names, or torch hub's; None if that is not there.

        Raises:
            WeightsError: ``path`` or the variable names a file that does not exist.
        """
        named = path or os.environ.get(self.variable)
        if named:
            file = Path(named).expanduser()
            if not file.is_file():
                origin = f"weights of {self.network}" if path else self.variable
                raise WeightsError(f"{origin}: no such file: {file}")
            return file
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        return next((file for file in map(folder.joinpath, self.cached) if file.is_file()), None)

    @property
    def absent(self) -> str:
        """Why what needs them cannot be measured."""
        return f"no weights of {self.network} here, see {self.variable}"


ALEXNET = WeightsFile("AlexNet", "MRDIFF_LPIPS_WEIGHTS", ("alexnet-owt-7be5be79.pth",))
VGG16 = WeightsFile("VGG16", "MRDIFF_VGG_WEIGHTS", ("vgg16-397923af.pth",))


def read_state(file: Path) -> dict[str, Tensor]:
    """A state dict.

    Raises:
        WeightsError: the file holds none.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)  # some are from a GPU
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise WeightsError(f"cannot read weights from {file}: {reason}") from error
    if not isinstance(state, dict):
        raise WeightsError(f"{file} holds no state dict")
    return state


def _alexnet_layers() -> nn.Sequential:
    """The convolutions up to the fifth ReLU (Krizhevsky 2014, "One weird trick")."""
    layers = [nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2)]
    layers += [nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2)]
    for inputs, outputs in pairwise((192, 384, 256, 256)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)


def _vgg16_layers(pool: Callable[[], nn.Module]) -> nn.Sequential:
    """The convolutions up to the last ReLU (Simonyan and Zisserman 2015), with any pooling."""
    layers: list[nn.Module] = []
    inputs = 3
    for outputs, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        if layers:
            layers.append(pool())
        for _ in range(count):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
            inputs = outputs
    return nn.Sequential(*layers)


class Backbone(nn.Module):
    """The convolutions of a network in the stages whose outputs are compared; frozen.

    Args:
        layers: makes them, numbered so that their keys are torchvision's ``features.N``.
        stages: where each ends, by the number of the layer behind it.
        state: keys other than ``features.*`` are ignored.

    Raises:
        RuntimeError: keys are missing or shapes differ.
    """

    def __init__(
        self,
        layers: Callable[[], nn.Sequential],
        stages: tuple[int, ...],
        state: Mapping[str, Tensor],
    ) -> None:
        super().__init__()
        with torch.device("meta"):  # no random initial weights: the global generator stays as it is
            self.layers = layers()
        own = {k.removeprefix(_PREFIX): v for k, v in state.items() if k.startswith(_PREFIX)}
        wanted = self.layers.state_dict().keys()
        self.layers.load_state_dict(
            {key: value.float() for key, value in own.items() if key in wanted}, assign=True
        )
        self.stages = tuple(pairwise((0, *stages)))
        for name, values in (("mean", _MEAN), ("deviation", _DEVIATION)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The features after each stage of RGB ``[B, 3, H, W]`` in [0, 1]."""
        values: Any = (image.float() - self.get_buffer("mean")) / self.get_buffer("deviation")
        found = []
        for start, stop in self.stages:
            values = self.layers[start:stop](values)
            found.append(values)
        return found


def alexnet(state: Mapping[str, Tensor]) -> Backbone:
    """With its five ReLUs."""
    return Backbone(_alexnet_layers, (2, 5, 8, 10, 12), state)


def vgg16(
    state: Mapping[str, Tensor], pool: Callable[[], nn.Module] = lambda: nn.MaxPool2d(2)
) -> Backbone:
    """With the last ReLU at each of its five sizes."""
    return Backbone(lambda: _vgg16_layers(pool), (4, 9, 16, 23, 30), state)
