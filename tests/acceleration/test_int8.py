"""Rounding to 8 bits: which convolutions, by how much, and what is left alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from mrdiff.acceleration import int8
from mrdiff.acceleration.int8 import RangeError, input_ranges, rounded
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.parameterization import Parameterization
from mrdiff.diffusion.process import MRProcess
from mrdiff.diffusion.wrappers import BoundDenoiser
from mrdiff.networks import RefusionNAFNet, UNet
from mrdiff.networks.protocol import is_plain
from mrdiff.restoration.restorer import Restorer
from mrdiff.solvers.sampler import MRSampler


class Small(nn.Module):
    """Convolutions of each kind; ``apart`` is called outside of ``forward``."""

    def __init__(self) -> None:
        super().__init__()
        self.apart = nn.Conv2d(3, 4, 1)
        self.last = nn.Conv2d(8, 3, 3, padding=1)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.wide = nn.Conv2d(8, 8, 3, padding=1)
        self.unused = nn.Conv2d(8, 8, 1)
        self.first = nn.Conv2d(3, 8, 1)
        self.gate = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.deep(self.wide(self.first(x))).relu()
        return self.last(inner * self.gate(inner.mean(dim=(-2, -1), keepdim=True)))


def small() -> Small:
    torch.manual_seed(0)
    return Small().eval().requires_grad_(False)


def test_the_ranges_are_those_of_the_inner_convolutions() -> None:
    network, images = small(), torch.randn(5, 2, 3, 9, 7)
    with input_ranges(network) as ranges:
        network.apart(images[0])
        for image in images:
            network(image)
        assert ranges == {}
    given = network.first(images.flatten(0, 1))
    assert set(ranges) == {"wide"}
    torch.testing.assert_close(ranges["wide"], (float(given.min()), float(given.max())))


def test_the_network_is_left_as_it_was_whatever_happens() -> None:
    network = small()
    with pytest.raises(RuntimeError, match="expected input"), input_ranges(network):
        network(torch.zeros(1, 5, 4, 4))
    for part in network.modules():
        assert not part._forward_pre_hooks
        assert not part._forward_hooks


def test_a_rounded_convolution_is_that_of_whole_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_vnni": True})
    network, image = small(), torch.randn(1, 3, 9, 7)
    least, most = -1.3, 2.1
    inner = rounded(network, {"wide": (least, most)}).wide
    given = network.first(image)
    scale = (most - least) / 255
    zero = round(-least / scale)
    steps = (given / scale + zero).round().clamp(0, 255) - zero
    weight = network.wide.weight
    weight_scale = weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
    weight_steps = (weight / weight_scale).round()
    assert weight_steps.abs().max() == int8.weight_steps() == 127
    product = nn.functional.conv2d(steps.double(), weight_steps.double(), padding=1)
    assert torch.equal(product, product.round())
    expected = product * scale * weight_scale.flatten()[:, None, None].double()
    expected = expected.float() + network.wide.bias[:, None, None]
    torch.testing.assert_close(inner(given), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(inner(given), network.wide(given), atol=1e-5)


@pytest.mark.parametrize("bounds", [(0.5, 2.0), (-2.0, -0.5), (0.0, 0.0)])
def test_zeros_stay_zeros_so_that_borders_do(bounds: tuple[float, float]) -> None:
    network = small()
    inner = rounded(network, {"wide": bounds}).wide
    nothing = torch.zeros(1, 8, 4, 4)
    torch.testing.assert_close(inner(nothing), network.wide(nothing))


def test_the_original_is_not_changed() -> None:
    network, image = small(), torch.randn(1, 3, 8, 8)
    before = network(image)
    copied = rounded(network, {"wide": (-1.0, 1.0)})
    assert torch.equal(network(image), before)
    assert not torch.equal(copied(image), before)
    assert list(network.state_dict()) == list(small().state_dict())


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"nothing": (0.0, 1.0)}, "another network: it has no convolution nothing"),
        ({"": (0.0, 1.0)}, "another network: it has no convolution"),
        ({"wide": (1.0, 0.0)}, "range of wide: from 1.0 to 0.0"),
        ({"wide": (math.nan, 1.0)}, "range of wide: from nan to 1.0"),
        ({"wide": (0.0, math.inf)}, "range of wide: from 0.0 to inf"),
    ],
)
def test_other_ranges_are_refused(ranges: dict[str, tuple[float, float]], message: str) -> None:
    with pytest.raises(RangeError, match=message):
        rounded(small(), ranges)


@pytest.mark.parametrize("kind", ["unet", "several tasks", "nafnet"])
def test_a_sampler_shows_the_network_its_states_and_rounding_costs_little(kind: str) -> None:
    torch.manual_seed(0)
    sizes = {"encoder": (1,), "middle": 1, "decoder": (1,)}
    network: nn.Module = UNet(widths=(8, 16), time_width=16, **sizes)
    if kind == "several tasks":
        network = UNet(widths=(8, 16), time_width=16, tasks=("a", "b"), **sizes)
    if kind == "nafnet":
        network = RefusionNAFNet(width=16, **sizes)
    network.eval().requires_grad_(False)
    for parameter in network.parameters():
        if not parameter.any():
            parameter.normal_(std=0.1)
    denoiser = Denoiser(network, MRProcess(), Parameterization.named("data"))
    context = {"task": torch.tensor([[0.3, 0.7]])} if kind == "several tasks" else None
    model = BoundDenoiser(denoiser, context)
    mu = torch.rand(1, 3, 32, 40)
    noise = lambda step, shape: torch.zeros(shape)  # noqa: E731
    plain = MRSampler(nfe=3)(model, mu, noise)
    with input_ranges(network) as ranges:
        assert not is_plain(network)
        torch.testing.assert_close(MRSampler(nfe=3)(model, mu, noise), plain)
    assert len(ranges) > 3
    assert not [name for name in ranges if name.startswith("classifier")]
    denoiser.network = rounded(network, ranges)
    assert not is_plain(denoiser.network)
    small = MRSampler(nfe=3)(model, mu, noise)
    change = (small - plain).norm() / (plain - mu).norm()
    assert 1e-5 < change < 0.05


def test_weights_have_fewer_steps_where_sums_of_products_would_overflow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """u8 x s8, two products in a sum of 16 bits: 2 * 255 * 63 = 32130."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    monkeypatch.setattr(int8.platform, "machine", lambda: "x86_64")
    assert int8.weight_steps() == 63
    weight = rounded(small(), {"wide": (0.0, 1.0)}).wide.weight
    steps = weight / weight.abs().amax(dim=(1, 2, 3), keepdim=True) * 63
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)
    monkeypatch.setattr(int8.platform, "machine", lambda: "aarch64")
    assert int8.weight_steps() == 127


def test_a_channel_of_zeros_stays_one() -> None:
    network = small()
    network.wide.weight[3] = 0.0
    inner = rounded(network, {"wide": (-1.0, 1.0)}).wide
    assert not inner.weight[3].any()
    assert inner(torch.randn(1, 8, 4, 4))[:, 3].unique().item() == network.wide.bias[3]


def test_what_is_not_finite_is_said_at_once() -> None:
    network = small()
    refused = pytest.raises(RangeError, match="first is given values that are not finite")
    with refused, input_ranges(network):
        network(torch.full((1, 3, 4, 4), math.nan))
    assert not network.first._forward_pre_hooks


def test_the_trial_of_the_tiler_is_not_watched() -> None:
    """It runs a black image through a copy of the network, to find out its memory."""
    torch.manual_seed(0)
    sizes = {"encoder": (1,), "middle": 1, "decoder": (1,)}
    network = UNet(widths=(4, 8), time_width=8, tasks=("a", "b"), **sizes)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    network.eval().requires_grad_(False)
    denoiser = Denoiser(network, MRProcess(), Parameterization.named("data"))
    photo, found = 0.5 + torch.rand(3, 64, 80) / 2, []
    for tile in ("auto", "off"):
        restorer = Restorer(denoiser, nfe=1, tile=tile, task="b")
        with input_ranges(network) as ranges:
            restorer(photo, name="x")
        found.append(ranges)
    assert found[0] == found[1]
    assert not [name for name in found[0] if name.startswith(("classifier", "head", "stem"))]
