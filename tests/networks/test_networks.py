"""The U-Net: any size, locality, memory format, time conditioning, sizes of the shipped models."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mrdiff.networks import UNet
from mrdiff.networks.unet import ResidualBlock

TINY = {"widths": (8, 12, 16), "time_width": 16}


def awake(network: torch.nn.Module) -> torch.nn.Module:
    """A network with no zero layer, as if it had been trained."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data.normal_(std=0.1, generator=generator)
    return network.eval()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 3))
def test_any_size_in_the_same_size_out(height: int, width: int, batch: int) -> None:
    x, mu = torch.rand(2, batch, 3, height, width)
    out = awake(UNet(**TINY))(x, mu, torch.rand(batch))
    assert out.shape == x.shape
    assert torch.isfinite(out).all()


def test_a_new_network_returns_zero() -> None:
    x, mu = torch.rand(2, 1, 3, 16, 16)
    assert torch.equal(UNet(**TINY)(x, mu, torch.ones(1)), torch.zeros_like(x))


def test_the_gain_passes_the_state_by_the_layers() -> None:
    network = UNet(**TINY)
    network.gain.bias.data.fill_(0.5)
    x, mu = torch.rand(2, 1, 3, 17, 16)
    out = network(x, mu, torch.ones(1))
    assert torch.allclose(out, 0.5 * network.input_gain * (x - mu))


def test_padding_does_not_change_the_inside() -> None:
    network = awake(UNet(widths=(8,), encoder=(), decoder=(), middle=1, time_width=16))
    x, mu = torch.rand(2, 1, 3, 65, 63)
    whole = network(x, mu, torch.full((1,), 0.5))
    part = network(x[..., :48, :48], mu[..., :48, :48], torch.full((1,), 0.5))
    assert torch.allclose(whole[..., :32, :32], part[..., :32, :32], atol=1e-5)


def test_each_image_has_its_own_time() -> None:
    network = awake(UNet(**TINY))
    x, mu = torch.rand(2, 1, 3, 16, 16)
    pair = network(x.repeat(2, 1, 1, 1), mu.repeat(2, 1, 1, 1), torch.tensor([0.1, 0.9]))
    alone = network(x, mu, torch.tensor([0.9]))
    assert torch.allclose(pair[1:], alone, atol=1e-5)
    assert not torch.allclose(pair[:1], alone, atol=1e-3)


def test_a_block_is_its_formula() -> None:
    block = awake(ResidualBlock(4, 8))
    x, time = torch.rand(2, 4, 6, 6), torch.rand(2, 8)
    scale, shift = block.film(time)[:, :, None, None].chunk(2, dim=1)
    silu = torch.nn.functional.silu
    hidden = (1 + scale) * block.first(silu(x)) + shift
    assert torch.allclose(block(x, block.film(time)), x + block.second(silu(hidden)), atol=1e-5)


def test_channels_last_gives_the_same_numbers_and_stays_so() -> None:
    network = awake(UNet(**TINY))
    x, mu = torch.rand(2, 2, 3, 32, 32)
    plain = network(x, mu, torch.ones(2))
    network = network.to(memory_format=torch.channels_last)
    last = network(x, mu, torch.ones(2))
    assert torch.allclose(plain, last, atol=1e-5)
    stage = network.down_stages[0]
    films = iter([block.film(torch.rand(2, 16)) for block in stage.blocks])
    hidden = stage(network.head(torch.rand(2, 24, 16, 16)), films)
    assert hidden.is_contiguous(memory_format=torch.channels_last)


def test_default_is_a_compact_model() -> None:
    count = sum(p.numel() for p in UNet().parameters())
    assert 0.5e6 < count < 2e6


@pytest.mark.parametrize("options", [{"encoder": (1,)}, {"decoder": (1, 1, 1)}])
def test_levels_that_disagree_are_refused(options: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="2 finer levels"):
        UNet(**options)


def test_context_is_refused() -> None:
    x, mu = torch.rand(2, 1, 3, 8, 8)
    with pytest.raises(ValueError, match="context"):
        UNet(**TINY)(x, mu, torch.ones(1), {"text": torch.zeros(1, 4)})
