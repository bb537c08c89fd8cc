"""The Inception network of 2015 whose features published FIDs compare, in plain torch."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SIDE = 299  # px: of what the network is given
_CLASSES = 1008  # of FID's; torchvision's network has the same layers, other weights and 1000

# Paths of layers and poolings; those of a block have one input, and their outputs are joined.
_STEM = "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 halve Conv2d_3b_1x1 Conv2d_4a_3x3 halve"
_DOUBLE = "branch3x3dbl_1 branch3x3dbl_2 "
_SEVEN = "branch7x7dbl_1 branch7x7dbl_2 branch7x7dbl_3 branch7x7dbl_4 branch7x7dbl_5"
_LAST = (
    *("branch3x3_1 branch3x3_2a", "branch3x3_1 branch3x3_2b"),
    *(_DOUBLE + "branch3x3dbl_3a", _DOUBLE + "branch3x3dbl_3b"),
)
_BLOCKS = {
    "5b 5c 5d": ("branch5x5_1 branch5x5_2", _DOUBLE + "branch3x3dbl_3", "mean branch_pool"),
    "6a": ("branch3x3", _DOUBLE + "branch3x3dbl_3", "halve"),
    "6b 6c 6d 6e": ("branch7x7_1 branch7x7_2 branch7x7_3", _SEVEN, "mean branch_pool"),
    "7a": (
        "branch3x3_1 branch3x3_2",
        "branch7x7x3_1 branch7x7x3_2 branch7x7x3_3 branch7x7x3_4",
        "halve",
    ),
    "7b": (*_LAST, "mean branch_pool"),
    "7c": (*_LAST, "max branch_pool"),  # FID's peculiarity, as is "mean"
}
_STRIDED = {"Conv2d_1a_3x3", "Mixed_6a/branch3x3", "Mixed_6a/branch3x3dbl_3"}
_STRIDED |= {"Mixed_7a/branch3x3_2", "Mixed_7a/branch7x7x3_4"}
_UNPADDED = _STRIDED | {"Conv2d_2a_3x3", "Conv2d_4a_3x3"}
_POOLS = {
    "mean": lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "max": lambda x: F.max_pool2d(x, 3, 1, 1),
    "halve": lambda x: F.max_pool2d(x, 3, 2),
}


def _convolution(name: str, layer: str, state: Mapping[str, Tensor]) -> nn.Conv2d:
    """A layer with the batch normalisation behind it."""
    weight = state[f"{layer}.conv.weight"].double()
    outputs, inputs, height, width = weight.shape
    found = nn.Conv2d(
        inputs,
        outputs,
        (height, width),
        stride=2 if name in _STRIDED else 1,
        padding=0 if name in _UNPADDED else (height // 2, width // 2),
        device="meta",  # no random initial weights: the global generator stays as it is
    )
    gain, shift, mean, variance = (
        state[f"{layer}.bn.{key}"].double()
        for key in ("weight", "bias", "running_mean", "running_var")
    )
    gain = gain / (variance + 1e-3).sqrt()
    folded = {"weight": gain.view(-1, 1, 1, 1) * weight, "bias": shift - gain * mean}
    found.load_state_dict({key: value.float() for key, value in folded.items()}, assign=True)
    return found


def resized(images: Tensor, side: int) -> Tensor:
    """``[B, C, side, side]``, bilinear as by TensorFlow 1: pixel i is at i, not at i + 1/2."""
    for dim in (-2, -1):
        size = images.shape[dim]
        at = torch.arange(side, dtype=torch.float32, device=images.device) * (size / side)
        low = at.long()
        share = (at - low).to(images.dtype).view(-1, *[1] * (-1 - dim))
        near = images.index_select(dim, low)
        images = near + share * (images.index_select(dim, (low + 1).clamp(max=size - 1)) - near)
    return images


class Inception(nn.Module):
    """The 2048 features of an image by FID's network (Szegedy et al. 2016, Heusel et al. 2017).

    Args:
        state: with the keys ``LAYER.conv.weight`` and ``LAYER.bn.*``, as pytorch-fid and
            torch-fidelity store it.

    Raises:
        KeyError: layers are missing.
        RuntimeError: shapes do not fit, or are those of another Inception.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        if len(state["fc.bias"]) != _CLASSES:
            raise RuntimeError(f"not the Inception of {_CLASSES} classes")
        layers = [key.removesuffix(".conv.weight") for key in state if "conv.weight" in key]
        names = {layer: layer.replace(".", "/") for layer in layers}  # keys hold no dots
        self.layers = nn.ModuleDict(
            {name: _convolution(name, layer, state) for layer, name in names.items()}
        )
        self.requires_grad_(False)
        shapes = {key: value.to("meta") for key, value in self.state_dict().items()}
        image = torch.empty(1, 3, _SIDE, _SIDE, device="meta")
        torch.func.functional_call(self, shapes, image)  # what is missing or does not fit

    def forward(self, images: Tensor) -> Tensor:
        """Features ``[B, 2048]`` of RGB ``[B, 3, H, W]`` in [0, 1]."""
        x = self._path((255 * resized(images, _SIDE) - 128) / 128, _STEM)
        for names, paths in _BLOCKS.items():
            for name in names.split():
                at = f"Mixed_{name}/"
                first = [] if name in ("6a", "7a") else ["branch1x1"]
                x = torch.cat([self._path(x, path, at) for path in (*first, *paths)], dim=1)
        return x.mean(dim=(2, 3))

    def _path(self, x: Tensor, path: str, at: str = "") -> Tensor:
        for name in path.split():
            x = _POOLS[name](x) if name in _POOLS else self.layers[at + name](x).relu()
        return x
