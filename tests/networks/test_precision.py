"""Networks with weights of 16 bits: exact angles of the time, outputs near those of float32."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from mrdiff.networks.blocks.parts import Sinusoids
from mrdiff.networks.protocol import prepare_network
from mrdiff.networks.unet import TimeEmbedding
from tests.networks.test_official import images, small
from tests.networks.test_prepared import NAMES, context_of, made

TIMES = torch.tensor([1.0, 0.87, 0.413, 0.01])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_angles_of_the_official_times_are_not_rounded(dtype: torch.dtype) -> None:
    raw = TIMES * 100
    exact = raw.double()[:, None] * 10000 ** (-torch.arange(32.0).double() / 31)
    waves = Sinusoids(64).to(dtype)(raw)
    assert waves.dtype == torch.float32
    torch.testing.assert_close(
        waves.double(), torch.cat([exact.sin(), exact.cos()], 1), atol=2e-5, rtol=0
    )


def test_the_angles_of_the_octaves_are_not_rounded() -> None:
    embedding = TimeEmbedding(16).bfloat16()
    seen: list[torch.Tensor] = []
    embedding.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    embedding(TIMES)
    exact = TIMES.double()[:, None] * math.pi * 2 ** torch.arange(8)
    assert seen[0].dtype == torch.bfloat16
    assert (seen[0] - torch.cat([exact.sin(), exact.cos()], 1)).abs().max() < 2**-8


def test_the_frequencies_are_not_in_checkpoints() -> None:
    for network in (made("unet"), small("irsde"), small("refusion")):
        assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_weights_in_bfloat16_give_nearly_the_same(name: str) -> None:
    network = made(name)
    x, mu = images(32, 32, 2)
    context = context_of(name, mu)
    times = TIMES[1:3]
    plain = network(x, mu, times, context)
    narrow = copy.deepcopy(network).to(torch.bfloat16)
    out = narrow(x.bfloat16(), mu.bfloat16(), times, context)
    assert out.dtype == torch.bfloat16
    spread = plain.max() - plain.min()
    assert (out - plain).abs().max() < 0.03 * spread
    run = prepare_network(narrow, mu.bfloat16(), times, context)
    assert run is not None
    for i in range(2):
        prepared = run(x.bfloat16(), mu.bfloat16(), i)
        plain = network(x, mu, times[i].expand(2), context)
        assert (prepared - plain).abs().max() < 0.03 * spread


@torch.no_grad()
def test_a_classifier_in_bfloat16_takes_any_images() -> None:
    network = made("unet of tasks")
    _, mu = images(32, 32, 2)
    logits = network.classify(mu)
    narrow = network.to(torch.bfloat16).classify(mu)
    assert (narrow - logits).abs().max() < 0.03 * (logits.max() - logits.min()).clamp(min=1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@torch.no_grad()
def test_prepared_times_are_at_least_float32(dtype: torch.dtype) -> None:
    seen: list[torch.dtype] = []

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1, dtype=dtype))

        def prepare(self, mu: object, times: torch.Tensor, context: object) -> None:
            seen.append(times.dtype)

    Watching.__module__ = "mrdiff.networks.watching"
    prepare_network(Watching(), None, TIMES, None)
    assert seen == [torch.float64 if dtype == torch.float64 else torch.float32]
