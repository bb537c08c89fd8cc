"""What a sampler does beside the network: few operations, and nothing that waits or uploads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mrdiff import Denoiser, MRProcess, TabulatedTheta, make_sampler
from mrdiff.diffusion.parameterization import Parameterization
from mrdiff.diffusion.wrappers import DenoiserLike
from mrdiff.restoration.tiled_denoiser import TiledDenoiser
from mrdiff.system.names import SAMPLERS

MU = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
NOISE = torch.randn(MU.shape, generator=torch.Generator().manual_seed(1))


class Operations(TorchDispatchMode):
    """The names of all operations, and how many there were at each call of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.calls: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class Ready(nn.Module):
    """Answers without an operation, and takes note."""

    def __init__(self, operations: Operations) -> None:
        super().__init__()
        self.operations = operations

    def forward(self, x: Tensor, mu: Tensor, t: Tensor, context: None = None) -> Tensor:
        self.operations.calls.append(len(self.operations.names))
        return NOISE if x.shape == NOISE.shape else x


def between_calls(name: str, target: str, *, tiled: bool = False) -> tuple[list[str], int]:
    """The operations between the first and the last call of the network, and the calls."""
    operations = Operations()
    process = MRProcess(TabulatedTheta.irsde("cosine"))
    denoiser: DenoiserLike = Denoiser(Ready(operations), process, Parameterization.named(target))
    if tiled:
        denoiser = TiledDenoiser(denoiser, 64, 16)
    mu = MU.repeat(1, 1, 5, 5) if tiled else MU
    with torch.no_grad(), operations:
        make_sampler(name, nfe=9)(denoiser, mu, noise=lambda step, shape: mu)
    first, *_, last = operations.calls
    return operations.names[first:last], len(operations.calls) - 1


@pytest.mark.parametrize("target", ["data", "noise", "velocity"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_at_most_six_operations_a_call(name: str, target: str) -> None:
    names, calls = between_calls(name, target)
    # The network, which was not prepared, is given its time as a view.
    assert sum(each != "expand" for each in names) <= 6 * calls, names
    assert not {"_local_scalar_dense", "lift_fresh", "_to_copy", "full"} & {*names}


def test_blend_weights_of_tiles_are_made_once() -> None:
    names, calls = between_calls("mr-ode-2", "data", tiled=True)
    assert not {"_local_scalar_dense", "lift_fresh", "_to_copy", "arange", "clamp"} & {*names}
    assert calls == 9 * 4 - 1
    assert (
        sum(each not in ("expand", "slice", "unsqueeze", "split") for each in names) <= 4 * calls
    ), names
