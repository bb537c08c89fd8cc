"""Denoisers around denoisers: they predict as the inner one does, and prepare it for a run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from callbacks.restoring import restore_timed
from mrdiff import Denoiser, MRProcess, MRSampler
from mrdiff.diffusion.parameterization import DATA
from mrdiff.diffusion.wrappers import AutocastDenoiser, BoundDenoiser, DenoiserWrapper, prepared
from mrdiff.restoration.tiled_denoiser import TiledDenoiser
from mrdiff.restoration.tiles import Tiler
from mrdiff.solvers.corrections import AveragedDenoiser, ThresholdedDenoiser
from mrdiff.solvers.noise import named_noise
from tests.networks.test_official import small

MU = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
bfloat16 = partial(torch.autocast, "cpu", dtype=torch.bfloat16)


class Spy(nn.Module):
    """A network of mrdiff that counts its calls, plain and prepared."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.ready, self.prepared = 0, 0, 0
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, mu: Tensor, t: Tensor, context: None = None) -> Tensor:
        self.plain += 1
        return self.scale * (x - mu)

    def prepare(
        self, mu: Tensor | None, times: Tensor, context: None = None
    ) -> Callable[[Tensor, Tensor, int], Tensor]:
        self.prepared += 1

        def run(x: Tensor, mu: Tensor, index: int) -> Tensor:
            self.ready += 1
            return self.scale * (x - mu)

        return run


Spy.__module__ = "mrdiff.networks.spy"  # others are not prepared: who knows what they do


def autocast(denoiser: Denoiser) -> AutocastDenoiser:
    return AutocastDenoiser(denoiser, nullcontext)


@torch.no_grad()
def test_a_validation_runs_the_prepared_network() -> None:
    network = Spy().eval()
    denoiser = Denoiser(network, MRProcess(), DATA)
    options = {"names": ["a", "b"], "seed": 0, "batch_size": 2}
    plain = MRSampler(nfe=4)(denoiser, MU, noise=named_noise(0, ["a", "b"]))
    assert (network.prepared, network.ready, network.plain) == (1, 4, 0)
    restored, _ = restore_timed(MRSampler(nfe=4), Tiler(denoiser, "off"), MU, **options)  # type: ignore[arg-type]
    assert (network.prepared, network.ready, network.plain) == (2, 8, 0)
    assert restored.equal(plain)


@pytest.mark.parametrize(
    "wrap",
    [
        autocast,
        lambda inner: BoundDenoiser(inner, None),
        lambda inner: BoundDenoiser(autocast(inner), None),
        lambda inner: ThresholdedDenoiser(inner, 0.9),
        AveragedDenoiser,
        lambda inner: TiledDenoiser(inner, 64, 16),
    ],
)
@torch.no_grad()
def test_every_wrapper_prepares_what_it_wraps(wrap: Callable[[Denoiser], DenoiserWrapper]) -> None:
    network = Spy().eval()
    wrapped, times = wrap(Denoiser(network, MRProcess(), DATA)), [0.9, 0.4]
    plain = [wrapped(MU + 0.1, t, MU).x0 for t in times]
    assert network.plain == 2
    ready = prepared(wrap(Denoiser(network, MRProcess(), DATA)), MU, times)
    assert ready.process == MRProcess()
    again = [ready(MU + 0.1, t, MU).x0 for t in times]
    assert (network.prepared, network.ready, network.plain) == (1, 2, 2)
    assert all(map(torch.equal, plain, again))


@pytest.mark.parametrize("name", ["irsde", "refusion"])
@torch.no_grad()
def test_a_network_prepared_under_autocast_answers_as_it_does_unprepared(name: str) -> None:
    denoiser = Denoiser(small(name).eval(), MRProcess(), DATA)
    half, sampler = AutocastDenoiser(denoiser, bfloat16), MRSampler(nfe=3, temperature=0.0)
    ready = sampler(half, MU)
    assert ready.dtype == torch.float32
    with torch.enable_grad():  # then nothing is prepared
        plain = sampler(half, MU).detach()
    exact = sampler(denoiser, MU)
    assert not ready.equal(exact)
    assert (ready - exact).abs().max() < 2 * (plain - exact).abs().max() + 1e-3


@torch.no_grad()
def test_what_is_prepared_can_be_prepared_for_another_run() -> None:
    network = Spy().eval()
    ready = prepared(Denoiser(network, MRProcess(), DATA), MU, [0.9, 0.4])
    other = prepared(ready, MU, [0.95, 0.45])
    assert network.prepared == 2
    other(MU + 0.1, 0.95, MU)
    other(MU + 0.1, 0.9, MU)  # of no run: the network is called as it is
    assert (network.ready, network.plain) == (1, 1)
