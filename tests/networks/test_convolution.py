"""Convolutions on the CPU train with the gradients of PyTorch's, whatever way they take."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from mrdiff.networks.blocks import convolution
from mrdiff.networks.blocks.convolution import Conv, pays
from mrdiff.networks.blocks.parts import Upsample
from tests.networks.test_official import features, images, small


@pytest.fixture(autouse=True)
def any_size_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "_HERE", True)
    monkeypatch.setattr(convolution, "_LARGE", 1)


def gradients(module: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    out = module(x)
    weights = torch.linspace(-1, 1, out.numel()).reshape(out.shape)
    made = torch.autograd.grad((out * weights).sum(), [x, *module.parameters()])
    return [out.detach(), *made]


def assert_same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5 * float(two.abs().max()), rtol=1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "options",
    [
        (1, {}),
        (3, {"padding": 1}),
        (7, {"padding": 3, "bias": False}),
        (4, {"stride": 2, "padding": 1}),
    ],
)
def test_gradients_are_those_of_the_convolution(
    options: tuple[int, dict[str, int]], layout: torch.memory_format
) -> None:
    conv = Conv(5, 6, options[0], **options[1]).to(memory_format=layout)
    x = torch.randn(2, 5, 14, 12).to(memory_format=layout)
    plain = nn.Conv2d(5, 6, options[0], **options[1])
    plain.load_state_dict(conv.state_dict())
    assert pays(x, conv.weight) is (layout == torch.channels_last)
    assert_same(gradients(conv, x), gradients(plain, x))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_upsampling_has_the_gradients_of_repetition(layout: torch.memory_format) -> None:
    up = Upsample(6, 4).to(memory_format=layout)
    x = torch.randn(2, 6, 5, 7).to(memory_format=layout)
    assert_same(gradients(up, x), gradients(nn.Sequential(*copy.deepcopy(up)), x))


def test_what_is_put_into_an_upsampling_is_called() -> None:
    """Hooks and adapters of its convolution, which the shortcut would pass by."""
    up = Upsample(2, 2).to(memory_format=torch.channels_last)
    calls: list[int] = []
    up[1].register_forward_hook(lambda *_: calls.append(1))
    up(torch.randn(1, 2, 4, 4))
    assert calls


def test_where_it_does_not_pay() -> None:
    x, weight = torch.randn(1, 2, 4, 4), nn.Parameter(torch.randn(2, 2, 3, 3))
    assert not pays(x, weight)
    x = x.to(memory_format=torch.channels_last)
    assert pays(x, weight)
    assert not pays(x.double(), weight)
    assert not pays(x, weight.detach())
    with torch.no_grad():
        assert not pays(x, weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert not pays(x, weight)


@pytest.mark.parametrize("name", ["irsde", "daclip", "refusion"])
def test_networks_have_the_gradients_of_the_plain_way(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, mu = images(37, 24, 2)
    context = features(2) if name == "daclip" else None
    found = []
    for here in (False, True):
        monkeypatch.setattr(convolution, "_HERE", here)
        network = small(name).to(memory_format=torch.channels_last)
        network(x, mu, torch.tensor([0.2, 0.9]), context).square().mean().backward()
        found.append([p.grad for p in network.parameters() if p.grad is not None])
    assert_same(found[1], found[0])
