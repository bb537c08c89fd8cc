"""Nothing a sampler can be asked for ends in NaN or infinity; the stable clocks stay bounded."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from mrdiff import ConstantTheta, CosineTheta, MRProcess, MRSampler
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.parameterization import Parameterization
from mrdiff.diffusion.schedule import MRSchedule
from mrdiff.solvers.timegrid import start_time
from mrdiff.system.names import GRIDS
from tests.oracles import SCHEDULES

# The last two have a log-SNR that falls to -26 and to -67 at t = 1.
ALL: dict[str, MRSchedule] = {
    **SCHEDULES,
    "vanishing": ConstantTheta(alpha_min=1e-12),
    "vanished": CosineTheta(alpha_min=1e-30),
}
CLOCKS = [("data", 0.0), ("data", 1.0), ("noise", 0.0), ("noise", 1.0), ("velocity", 0.0)]
SOME_NFE = (1, 2, 5, 30)


class Rounded(nn.Module):
    """A bounded, wrong network that answers in bfloat16."""

    def forward(self, x: Tensor, mu: Tensor, t: Tensor, context: None = None) -> Tensor:
        del context
        return torch.tanh(2 * (x - mu) + torch.sin(9 * mu) + t.reshape(-1, 1, 1, 1)).bfloat16()


def restored(schedule: MRSchedule, target: str, options: dict[str, object]) -> Tensor:
    process = MRProcess(schedule)
    denoiser = Denoiser(Rounded(), process, Parameterization.named(target))
    mu = torch.linspace(0, 1, 48).reshape(1, 3, 4, 4)
    sampler = MRSampler(**options)  # type: ignore[arg-type]
    return sampler(denoiser, mu, noise=torch.Generator().manual_seed(0))


def check(name: str, prediction: str, eta: float, nfes: tuple[int, ...]) -> None:
    for order, nfe, corrector in product((1, 2, 3, 4), nfes, (False, True)):
        image = restored(
            ALL[name],
            prediction,
            {
                "nfe": nfe,
                "order": order,
                "eta": eta,
                "prediction": prediction,
                "corrector": corrector,
            },
        )
        assert image.dtype == torch.float32
        assert torch.isfinite(image).all(), (name, prediction, order, nfe, corrector)
        if prediction == "data":  # x0 itself is predicted, within 0.1 of mu
            assert image.abs().max() < 1.2, (name, order, nfe, corrector)


@pytest.mark.parametrize(("prediction", "eta"), CLOCKS)
@pytest.mark.parametrize("name", ALL)
def test_every_schedule_clock_and_order_is_finite(name: str, prediction: str, eta: float) -> None:
    check(name, prediction, eta, SOME_NFE)


@pytest.mark.slow
@pytest.mark.parametrize(("prediction", "eta"), CLOCKS)
@pytest.mark.parametrize("name", ALL)
def test_every_nfe_to_100_is_finite(name: str, prediction: str, eta: float) -> None:
    check(name, prediction, eta, tuple(range(1, 101)))


@pytest.mark.parametrize("target", ["data", "noise", "velocity"])
@pytest.mark.parametrize("prediction", ["data", "noise", "velocity"])
@pytest.mark.parametrize("grid", GRIDS)
def test_every_grid_target_and_clock_is_finite(grid: str, prediction: str, target: str) -> None:
    for name, nfe in product(ALL, (1, 2, 5, 30)):
        options: dict[str, object] = {"nfe": nfe, "prediction": prediction, "grid": grid}
        assert torch.isfinite(restored(ALL[name], target, options)).all(), (name, nfe)


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
