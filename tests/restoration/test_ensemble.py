"""Several restorations: their mean and deviation, and that the deviation is what it says."""

from __future__ import annotations

import torch
from torch import Tensor

from mrdiff.diffusion.process import MRProcess
from mrdiff.restoration.ensemble import draw
from mrdiff.solvers.noise import named_noise
from mrdiff.solvers.oracle import GaussianOracle
from mrdiff.solvers.sampler import MRSampler


def test_mean_and_deviation_are_those_of_all_samples() -> None:
    images = torch.rand(7, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    mean, std = draw(lambda index: images[index], 7)
    torch.testing.assert_close(mean, images.mean(0))
    torch.testing.assert_close(std, images.std(0))
    mean, std = draw(lambda index: images[index], 1)
    assert torch.equal(mean, images[0])
    assert std.eq(0).all()


def test_a_small_deviation_of_large_values_keeps_its_digits() -> None:
    images = 1 + 1e-5 * torch.randn(9, 1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    _, std = draw(lambda index: images[index], 9)
    torch.testing.assert_close(std, images.std(0), rtol=0.05, atol=0)


def test_the_map_is_calibrated_where_the_answer_is_known() -> None:
    """The truth is N(mu + 0.3, s²) with a known s.

    The map says s; the truth lies within the deviation of the mean as often as a Gaussian does.
    """
    mu = torch.full((1, 3, 48, 64), 0.2, dtype=torch.float64)
    process, sampler = MRProcess(), MRSampler(nfe=40, order=2, grid="uniform_log_snr")
    for spread in (0.02, 0.15):
        oracle = GaussianOracle(process, mean=0.3, std=spread)

        def one(index: int, oracle: GaussianOracle = oracle) -> Tensor:
            return sampler(oracle, mu, noise=named_noise(index, ["photo"]))

        mean, std = draw(one, 24)
        generator = torch.Generator().manual_seed(1)
        truth = mu + 0.3 + spread * torch.randn(mu.shape, generator=generator).double()
        assert abs(float(std.square().mean().sqrt()) / spread - 1) < 0.05
        # Of the truth about a mean of 24 samples; their own deviation has 23 degrees of freedom.
        standard = (truth - mean) / std / (1 + 1 / 24) ** 0.5
        within = [float((standard.abs() < bound).double().mean()) for bound in (1, 2)]
        assert abs(within[0] - 0.672) < 0.02  # of Student's t with 23 degrees
        assert abs(within[1] - 0.943) < 0.015


def test_the_deviation_of_one_sample_is_where_the_sample_is() -> None:
    sample = torch.empty(1, 3, 8, 8, device="meta")
    mean, std = draw(lambda index: sample, 1)
    assert (std.device, std.dtype, std.shape) == (mean.device, mean.dtype, mean.shape)
