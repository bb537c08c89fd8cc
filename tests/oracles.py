"""Closed-form denoisers and slow, obvious references that the solvers are tested against."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mrdiff import (
    DDBMVE,
    DDBMVP,
    GOUB,
    RDDM,
    BrownianBridge,
    ConditionalVP,
    ConstantTheta,
    CosineTheta,
    DiffUIR,
    FlowMatching,
    GaussianPath,
    InDI,
    LinearTheta,
    MRProcess,
    ResShift,
    TabulatedTheta,
    UniDB,
)
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.parameterization import Parameterization
from mrdiff.solvers.oracle import GaussianOracle

SCHEDULES = {
    "cosine": CosineTheta(),
    "linear": LinearTheta(),
    "constant": ConstantTheta(),
    "table": TabulatedTheta.irsde("cosine"),
    "table-first": TabulatedTheta.irsde("linear", keep_first=True),
}
# One of every family; those of a schedule have different ones.
PATHS: dict[str, GaussianPath] = {
    "mr": MRProcess(),
    "goub": GOUB(TabulatedTheta.irsde("cosine")),
    "unidb": UniDB(LinearTheta(), gamma=1e3),
    "brownian": BrownianBridge(),
    "ddbm-ve": DDBMVE(),
    "ddbm-vp": DDBMVP(),
    "resshift": ResShift(),
    "rddm": RDDM(),
    "diffuir": DiffUIR(ConstantTheta()),
    "flow": FlowMatching(),
    "indi": InDI(),
    "vp": ConditionalVP(LinearTheta()),
}
CONTINUOUS = {name: SCHEDULES[name] for name in ("cosine", "linear", "constant")}


class OracleNetwork(nn.Module):
    """The Gaussian oracle expressed as a network in one of the parameterizations."""

    def __init__(self, oracle: GaussianOracle, parameterization: Parameterization, std: float):
        super().__init__()
        self.oracle, self.parameterization, self.data_std = oracle, parameterization, std

    def forward(self, x: Tensor, mu: Tensor, t: Tensor, context: None = None) -> Tensor:
        t = t.reshape(-1, 1, 1, 1)
        prediction = self.oracle(x, t, mu)
        a, b, scale = self.parameterization.scaled(self.oracle.process, t, self.data_std)
        return (a * (prediction.x0 - mu) + b * prediction.eps) / scale


def oracle_denoiser(oracle: GaussianOracle, name: str, data_std: float = 0.1) -> Denoiser:
    """The oracle behind the real :class:`Denoiser` in the named parameterization."""
    target = Parameterization.named(name)
    network = OracleNetwork(oracle, target, data_std)
    return Denoiser(network, oracle.process, target, data_std=data_std)


def fitted_slope(counts: list[int], errors: list[float]) -> float:
    """Order of convergence: minus the least-squares slope of log(error) over log(count)."""
    x = torch.log(torch.tensor(counts, dtype=torch.float64))
    y = torch.log(torch.tensor(errors, dtype=torch.float64))
    x, y = x - x.mean(), y - y.mean()
    return float(-(x * y).sum() / (x * x).sum())
