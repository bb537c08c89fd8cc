"""Every path: its functions agree with each other, every target can be read back."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mrdiff import (
    GOUB,
    BrownianBridge,
    Denoiser,
    GaussianPath,
    InDI,
    MRDiffusion,
    MRProcess,
)
from mrdiff.checkpoints.description import build_process, describe
from mrdiff.diffusion.parameterization import BOUNDARY, DATA, Parameterization
from mrdiff.training.objective import ScaledTarget
from tests.oracles import PATHS
from tests.tiny_training import tiny_unet

F64 = torch.float64
TARGETS = ["data", "noise", "velocity", "preconditioned", "boundary"]
SCHEDULED = [name for name, path in PATHS.items() if hasattr(path, "schedule")]
INNER = torch.tensor([0.05, 0.2, 0.5, 0.8, 0.95], dtype=F64)
# A cold path has no noise that a network could learn.
READABLE = [(n, o) for n, path in PATHS.items() for o in TARGETS if path.noise or o != "noise"]
every_target = pytest.mark.parametrize(("name", "target"), READABLE)
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
names = st.sampled_from(sorted(PATHS))
inner_times = st.floats(1e-3, 0.999)


def images(count: int, dtype: torch.dtype = F64) -> tuple[Tensor, Tensor, Tensor]:
    """x0, mu, eps ``[count, 3, 2, 2]``."""
    draw = torch.Generator().manual_seed(3)
    shape = (count, 3, 2, 2)
    x0, mu = (torch.rand(shape, generator=draw, dtype=F64) for _ in range(2))
    return x0.to(dtype), mu.to(dtype), torch.randn(shape, generator=draw, dtype=F64).to(dtype)


class Echo(nn.Module):
    """Answers what it was made with."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor, mu: Tensor, t: Tensor, context: None = None) -> Tensor:
        return self.answer


def test_there_is_one_path_of_every_family() -> None:
    def families(kind: Any) -> set[type]:
        below = {found for sub in kind.__subclasses__() for found in families(sub)}
        whole = kind.__module__.startswith("mrdiff.") and not kind.__abstractmethods__
        return below | ({kind} if whole else set())

    assert {type(path) for path in PATHS.values()} == families(GaussianPath)


@every_path
def test_log_snr_falls_from_clean_to_degraded(path: GaussianPath) -> None:
    t = torch.linspace(1e-6, 1, 4001, dtype=F64)
    assert (path.log_snr(t).diff() < 0).all()
    alpha, sigma = path.shares(t)
    assert (alpha.diff() < 0).all()
    assert (alpha >= 0).all()
    assert (sigma > 0).all()
    assert float(path.sigma(t).max()) <= 1.05 * path.scale


@every_path
def test_it_starts_clean(path: GaussianPath) -> None:
    x0, mu, eps = images(1)
    # ResShift begins at its least noise, where eta is (least / kappa)².
    gap, noise = (4e-4, 0.02) if "ResShift" in repr(path) else (1e-15, 1e-12)
    assert float(path.alpha(0.0)) == pytest.approx(1, abs=gap)
    assert float(path.sigma(0.0)) == pytest.approx(0, abs=noise)
    off = path.marginal(x0, mu, torch.zeros(1, dtype=F64), eps) - x0
    assert float((off - noise * eps * (noise > 1e-3)).abs().max()) <= 1.01 * gap


@given(names, inner_times)
def test_the_time_of_a_log_snr(name: str, t: float) -> None:
    path = PATHS[name]
    back = path.t_of_log_snr(path.log_snr(torch.tensor(t, dtype=F64)))
    assert float(back) == pytest.approx(t, rel=1e-9, abs=1e-11)


@given(names, inner_times)
def test_alpha_sigma_and_log_snr_agree(name: str, t: float) -> None:
    path, at = PATHS[name], torch.tensor(t, dtype=F64)
    alpha, sigma = path.shares(at)
    assert (float(alpha), float(sigma)) == (float(path.alpha(at)), float(path.sigma(at)))
    assert float(path.log_snr(at)) == pytest.approx(math.log(float(alpha / sigma)), abs=1e-10)
    frame = path.frame(at)
    # d(y / size) = v dclock with v = y0_rate y0 + eps_rate eps: the same for y0 and for eps.
    step = 1e-5 * t * (1 - t)
    ends = torch.tensor([t - step, t + step], dtype=F64)
    near = path.frame(ends)
    change = near.clock.diff()
    for share, rate in zip(path.shares(ends), (frame.y0_rate, frame.eps_rate), strict=True):
        slope = float((share / near.size).diff() / change)
        assert slope == pytest.approx(float(rate), rel=1e-5, abs=1e-6)


@given(names, inner_times)
def test_dtype_is_kept_and_float32_is_computed_in_float64(name: str, t: float) -> None:
    path = PATHS[name]
    narrow = torch.tensor([t], dtype=torch.float32)
    for function in (path.alpha, path.sigma, path.log_snr, path.noise_rate):
        assert function(narrow).dtype == torch.float32
        exact = function(narrow.double()).float()
        assert torch.allclose(function(narrow), exact, rtol=2e-7, atol=0)  # to the last bit
        assert function(t).dtype == F64
        assert function(t).shape == ()
    assert path.t_of_log_snr(path.log_snr(narrow)).dtype == torch.float32
    for dtype in (torch.float32, F64):
        x0, mu, eps = images(1, dtype)
        x = path.marginal(x0, mu, narrow, eps)
        mean, std = path.posterior(x, x0, mu, narrow, 0.5 * narrow)
        assert x.dtype == path.prior(mu, eps).dtype == path.centred(mu, t).dtype == dtype
        assert mean.dtype == std.dtype == dtype


@every_path
def test_noise_rate_is_sigma_dlambda_over_dlog_alpha(path: GaussianPath) -> None:
    # Off the knots of a table, where only one-sided slopes exist.
    t = (INNER + 0.0033).requires_grad_()
    alpha, sigma = path.coefficients(t)
    slopes = torch.autograd.grad(path.exact_log_snr(t).sum(), t)[0]
    slopes /= torch.autograd.grad(torch.log(alpha).sum(), t)[0]
    t = t.detach()
    assert torch.allclose(path.noise_rate(t), sigma.detach() * slopes, rtol=1e-7, atol=0)
    if isinstance(path, MRProcess):
        closed = path.sigma_max**2 / path.sigma(t)
        assert torch.allclose(path.noise_rate(t), closed, rtol=1e-14, atol=0)
        assert torch.allclose(GaussianPath.noise_rate(path, t), closed, rtol=1e-7, atol=0)


@every_path
def test_the_marginal_and_its_noise(path: GaussianPath) -> None:
    x0, mu, eps = images(len(INNER))
    x = path.marginal(x0, mu, INNER, eps)
    alpha, sigma = (share.reshape(-1, 1, 1, 1) for share in path.shares(INNER))
    y = x - path.centred(mu, INNER)
    assert torch.allclose(y, alpha * (x0 - mu) + path.noise * sigma * eps, atol=1e-14)
    assert torch.allclose(path.noise_in(x, x0, mu, INNER), path.noise * eps, atol=1e-11)


@every_target
def test_every_target_is_read_back(name: str, target: str) -> None:
    path = PATHS[name]
    x0, mu, eps = images(len(INNER))
    denoiser = Denoiser(nn.Identity(), path, Parameterization.named(target), data_std=0.2)
    x = path.marginal(x0, mu, INNER, eps)
    answer = denoiser.scaled_target(x0, mu, INNER, eps)
    denoiser.network = Echo(answer)
    prediction = denoiser(x, INNER, mu)
    assert float((prediction.x0 - x0).abs().max()) < 1e-9
    assert float((prediction.eps - path.noise * eps).abs().max()) < 1e-9
    for i, t in enumerate(INNER.tolist()):  # as samplers ask: a float
        row = slice(i, i + 1)
        prediction = denoiser.read(answer[row], x[row], t, mu[row])
        assert float((prediction.x0 - x0[row]).abs().max()) < 1e-9
        assert float((prediction.eps - path.noise * eps[row]).abs().max()) < 1e-9


@every_path
def test_boundary_is_data_but_for_the_earliest_times(path: GaussianPath) -> None:
    """x0 is read as under data to a share q² = (0.1 data_std alpha / sigma)², which ends at q."""
    std = 0.2
    boundary, data = (Denoiser(nn.Identity(), path, t, data_std=std) for t in (BOUNDARY, DATA))
    x, mu, out = images(len(INNER))
    alpha, sigma = (share.reshape(-1, 1, 1, 1) for share in path.shares(INNER))
    ours, theirs = (denoiser.read(out, x, INNER, mu).x0 for denoiser in (boundary, data))
    y, q = x - path.centred(mu, INNER), 0.1 * std * alpha / sigma
    off = (ours - theirs).abs()
    assert (off <= q**2 * ((y / alpha).abs() + std * out.abs())).all()
    assert (off.amax(dim=(1, 2, 3)) > 0).all()
    if float(path.sigma(0.0)) > 1e-6:  # there is no time at which the state is clean
        return
    shares = torch.tensor([1e-2, 1e-3, 1e-4], dtype=F64)  # of 0.1 std
    early = path.t_of_log_snr(-torch.log(0.1 * std * shares))
    x, mu, out = images(3)
    off = (boundary.read(out, x, early, mu).x0 - x).abs().amax(dim=(1, 2, 3))
    assert (off < 10 * std * shares).all()


def test_weights_of_data_mean_nearly_the_same_under_boundary() -> None:
    assert BOUNDARY.takes("data")
    assert BOUNDARY.takes("boundary")
    assert not BOUNDARY.takes("noise")
    assert not DATA.takes("boundary")


@every_target
def test_training_at_the_last_instant_is_finite(name: str, target: str) -> None:
    path = PATHS[name]
    x0, mu, eps = images(2, torch.float32)
    denoiser = Denoiser(Echo(x0), path, Parameterization.named(target))
    last = torch.ones(2)
    x = path.marginal(x0, mu, last, eps)
    _, truth = ScaledTarget()(denoiser, x0, mu, last, eps)
    assert x.dtype == truth.dtype == torch.float32
    assert torch.isfinite(x).all()
    assert torch.isfinite(truth).all()
    assert truth.abs().max() < 1.01 / denoiser.data_std  # of unit size for residuals of data_std


@pytest.mark.parametrize("path", [InDI(), BrownianBridge(), GOUB()])
def test_no_network_learns_noise_that_is_not_there(path: GaussianPath) -> None:
    with pytest.raises(ValueError, match=f"{type(path).__name__} there is no noise to predict"):
        MRDiffusion(tiny_unet(), path, "noise")


def test_noise_is_learnt_on_a_bridge_that_starts_before_its_end() -> None:
    MRDiffusion(tiny_unet(), GOUB(starts_at=0.99), "noise")


@every_path
def test_it_travels(path: GaussianPath) -> None:
    for twin in (
        pickle.loads(pickle.dumps(path)),
        build_process(describe(path)),
        replace(path),  # type: ignore[type-var]
    ):
        assert twin == path
        assert hash(twin) == hash(path)
        assert twin is not path
    others = [other for other in PATHS.values() if other is not path]
    assert path not in others


@pytest.mark.parametrize("name", SCHEDULED)
def test_a_path_of_another_schedule_is_another(name: str) -> None:
    path = PATHS[name]
    for other in (path for path in PATHS.values() if hasattr(path, "schedule")):
        if other.schedule != path.schedule:  # type: ignore[attr-defined]
            assert replace(path, schedule=other.schedule) != path  # type: ignore[type-var]
