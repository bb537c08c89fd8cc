"""Local averages: what they are, where they lie, and that tiles agree with the whole photo."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.parameterization import Parameterization
from mrdiff.diffusion.process import MRProcess
from mrdiff.networks.local_pooling import LocalAverage, localise
from mrdiff.restoration.tiled_denoiser import TiledDenoiser


@settings(deadline=None, max_examples=30)
@given(*[st.integers(1, 12)] * 4)
def test_each_place_has_the_average_of_its_window(h: int, w: int, high: int, wide: int) -> None:
    x = torch.randn(1, 2, h, w, generator=torch.Generator().manual_seed(0))
    mean = LocalAverage(high, wide)(x).expand(1, 2, h, w)
    rows, columns = min(h, high), min(w, wide)
    for i in range(h):
        for j in range(w):
            top = min(max(i - (rows - 1) // 2, 0), h - rows)
            left = min(max(j - (columns - 1) // 2, 0), w - columns)
            window = x[..., top : top + rows, left : left + columns]
            torch.testing.assert_close(mean[..., i, j], window.mean((-2, -1)))


class Attending(nn.Module):
    """A small network with channel attention at two scales."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Conv2d(6, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 8, 2, stride=2)
        self.fine = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid())
        self.coarse = nn.Sequential(nn.AdaptiveAvgPool2d((1, 1)), nn.Conv2d(8, 8, 1), nn.Sigmoid())
        self.tail = nn.Conv2d(8, 3, 3, padding=1)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3)

    def forward(self, x: Tensor, mu: Tensor, t: Tensor, context: object = None) -> Tensor:
        hidden = self.head(torch.cat([x, mu], dim=1))
        hidden = hidden * self.fine(hidden)
        small = self.down(hidden)
        small = small * self.coarse(small)
        wide = nn.functional.interpolate(small, scale_factor=2)
        return self.tail(hidden + wide)


def test_nothing_changes_at_the_size_of_training() -> None:
    network = Attending()
    x, mu = torch.randn(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    before = network(x, mu, torch.ones(1))
    assert localise(network, 64) == 2
    assert (network.fine[0].height, network.coarse[0].width) == (96, 48)
    assert torch.equal(network(x, mu, torch.ones(1)), before)


def test_tiles_come_closer_to_the_whole_photo() -> None:
    """A photo whose halves differ: global averages of tiles differ from that of the photo."""
    network = Attending()
    denoiser = Denoiser(network, MRProcess(), Parameterization.named("data")).eval()
    generator = torch.Generator().manual_seed(2)
    x, mu = torch.rand(2, 1, 3, 256, 256, generator=generator)
    mu[..., :128] *= 0.1
    t = torch.tensor(0.5)

    def gap() -> float:
        tiled = TiledDenoiser(denoiser, 128, overlap=96)(x, t, mu).x0
        return float((tiled - denoiser(x, t, mu).x0).abs().mean())

    with torch.no_grad():
        before = gap()
        localise(network, 32)
        after = gap()
    assert after < 0.1 * before


def test_a_network_without_averages_is_refused() -> None:
    with pytest.raises(ValueError, match="no global average"):
        localise(nn.Conv2d(3, 3, 1), 64)
