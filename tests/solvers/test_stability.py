"""Nothing a sampler can be asked for ends in NaN or infinity; the stable clocks stay bounded."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mrdiff import ConstantTheta, CosineTheta, GaussianPath, MRProcess, MRSampler
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.parameterization import Parameterization
from mrdiff.diffusion.prediction import Prediction
from mrdiff.solvers.run import StepCallback
from mrdiff.solvers.timegrid import start_time
from mrdiff.system.names import GRIDS
from tests.oracles import PATHS, SCHEDULES

# Every schedule of the mean-reverting path, two of them with a log-SNR that falls to -26 and to -67
# at t = 1, and one path of every other family.
ALL: dict[str, GaussianPath] = {
    **{name: MRProcess(schedule) for name, schedule in SCHEDULES.items()},
    "vanishing": MRProcess(ConstantTheta(alpha_min=1e-12)),
    "vanished": MRProcess(CosineTheta(alpha_min=1e-30)),
    **{name: path for name, path in PATHS.items() if name != "mr"},
}
CLOCKS = [("data", 0.0), ("data", 0.5), ("data", 1.0), ("data", 3.0), ("data", math.inf)]
CLOCKS += [("noise", 0.0), ("noise", 1.0), ("velocity", 0.0)]
SOME_NFE = (1, 2, 5, 30)
MU = torch.linspace(0, 1, 48).reshape(1, 3, 4, 4)


class Rounded(nn.Module):
    """A bounded, wrong network that answers in ``precision``."""

    def __init__(self, precision: torch.dtype) -> None:
        super().__init__()
        self.precision = precision

    def forward(self, x: Tensor, mu: Tensor, t: Tensor, context: None = None) -> Tensor:
        del context
        out = torch.tanh(2 * (x - mu) + torch.sin(9 * mu) + t.reshape(-1, 1, 1, 1))
        return out.to(self.precision)


def restored(
    path: GaussianPath,
    target: str,
    precision: torch.dtype = torch.bfloat16,
    callback: StepCallback | None = None,
    **options: Any,
) -> Tensor:
    # Without noise nothing learns it; what is predicted says it is none.
    target = target if path.noise or target != "noise" else "data"
    denoiser = Denoiser(Rounded(precision), path, Parameterization.named(target))
    noise = torch.Generator().manual_seed(0)
    return MRSampler(**options)(denoiser, MU, noise=noise, callback=callback)


def check(
    name: str,
    prediction: str,
    eta: float,
    nfes: tuple[int, ...],
    precisions: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16),
) -> None:
    path, largest = ALL[name], 0.0

    def watch(step: int, t: float, x: Tensor, predicted: Prediction) -> None:
        nonlocal largest
        largest = max(largest, float(x.abs().max()))

    for order, nfe, corrector, precision in product((1, 2, 3, 4), nfes, (False, True), precisions):
        asked = {"nfe": nfe, "order": order, "eta": eta, "corrector": corrector}
        image = restored(path, prediction, precision, watch, prediction=prediction, **asked)
        assert image.dtype == torch.float32
        assert torch.isfinite(image).all(), (name, prediction, asked)
        if prediction == "data":  # x0 itself is predicted, within 0.1 of mu
            assert image.abs().max() < 1.2, (name, asked)
            assert largest < 1.2 + 5 * path.scale, (name, asked)


@pytest.mark.parametrize(("prediction", "eta"), CLOCKS)
@pytest.mark.parametrize("name", ALL)
def test_every_path_clock_and_order_is_finite(name: str, prediction: str, eta: float) -> None:
    check(name, prediction, eta, SOME_NFE)


@pytest.mark.slow
@pytest.mark.parametrize(("prediction", "eta"), CLOCKS)
@pytest.mark.parametrize("name", ALL)
def test_every_nfe_to_100_is_finite(name: str, prediction: str, eta: float) -> None:
    check(name, prediction, eta, tuple(range(1, 101)), (torch.bfloat16,))


@pytest.mark.parametrize("target", ["data", "noise", "velocity", "preconditioned", "boundary"])
@pytest.mark.parametrize("prediction", ["data", "noise", "velocity"])
@pytest.mark.parametrize("grid", GRIDS)
def test_every_grid_target_and_clock_is_finite(grid: str, prediction: str, target: str) -> None:
    for name, nfe in product(ALL, (1, 2, 5, 30)):
        image = restored(ALL[name], target, nfe=nfe, prediction=prediction, grid=grid)
        assert torch.isfinite(image).all(), (name, nfe)


def test_sampling_starts_where_alpha_has_not_vanished() -> None:
    process = MRProcess(ConstantTheta(alpha_min=1e-12))
    start = start_time(process)
    assert float(process.alpha(torch.tensor(start, dtype=torch.float64))) == pytest.approx(1e-3)
    for grid in GRIDS:
        assert float(MRSampler(nfe=4, grid=grid).times(process)[0]) == start
    given = MRSampler(nfe=3, grid=[1.0, 0.2, 0.1, 0.0]).times(process)
    assert given.tolist() == [start, 0.2, 0.1, 0.0]
    with pytest.raises(ValueError, match="all but the first are below"):
        MRSampler(nfe=3, grid=[1.0, 0.9, 0.1, 0.0]).times(process)
    assert start_time(MRProcess(CosineTheta(alpha_min=0.001))) == 1.0
