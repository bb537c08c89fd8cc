"""Networks made ready for a run return the numbers of their plain forward."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from mrdiff import Denoiser, MRProcess, MRSampler, TabulatedTheta, make_sampler
from mrdiff.diffusion.denoiser import PreparedDenoiser
from mrdiff.diffusion.parameterization import NOISE
from mrdiff.diffusion.wrappers import prepared
from mrdiff.networks import RefusionNAFNet, UNet
from mrdiff.networks.blocks.parts import LinearAttention, Prenorm, ResBlock, Upsample
from mrdiff.networks.inference.derived import derived, forget_changed
from mrdiff.networks.inference.fast import fast_copy
from mrdiff.networks.inference.winograd import pays, winograd_conv
from mrdiff.networks.local_pooling import localise
from mrdiff.restoration.tiled_denoiser import TiledDenoiser
from mrdiff.system.names import BASELINES
from tests.networks.test_official import features, images, small

NAMES = ["irsde", "daclip", "refusion", "unet", "unet with mask", "unet of tasks"]


def made(name: str) -> nn.Module:
    if not name.startswith("unet"):
        return small(name)
    options = {"mask": name.endswith("mask"), "tasks": ("a", "b") if "tasks" in name else ()}
    network = UNet(widths=(8, 12, 16), time_width=16, **options)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data.normal_(std=0.1, generator=generator)
    return network.eval()


def context_of(name: str, mu: Tensor) -> dict[str, Tensor] | None:
    match name:
        case "daclip":
            return features(len(mu))
        case "unet with mask":
            return {"mask": (mu[:, :1] > 0.3).float()}
        case "unet of tasks":
            return {"task": torch.tensor([[0.3, 0.7]]).expand(len(mu), 2)}
    return None


def assert_near(out: Tensor, plain: Tensor) -> None:
    assert out.shape == plain.shape
    assert (out - plain).abs().max() < 1e-5 * plain.abs().max()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("size", "batch"), [((48, 32), 1), ((37, 51), 2)])
@pytest.mark.parametrize("tiles", [False, True])
@torch.no_grad()
def test_the_numbers_of_the_forward(
    name: str, size: tuple[int, int], batch: int, tiles: bool
) -> None:
    network = made(name).to(memory_format=torch.channels_last)
    x, mu = images(*size, batch)
    times, context = torch.tensor([1.0, 0.6, 0.07]), context_of(name, mu)
    run = network.prepare(None if tiles else mu, times, context)
    if run is None:
        assert tiles
        assert name == "unet with mask"
        return
    for i, t in enumerate(times):
        given = x.clone(), mu.clone()
        out = run(*given, i)
        assert torch.equal(given[0], x)  # nothing is overwritten that is not its own
        assert torch.equal(given[1], mu)
        assert_near(out, network(x, mu, t.expand(batch), context))


@torch.no_grad()
def test_new_weights_count_at_once() -> None:
    """In place, by other storage, and past the version counter as averages are swapped in."""
    network = small("irsde")
    x, mu = images(32, 32, 1)
    times = torch.tensor([0.5])
    network.prepare(mu, times, None)(x, mu, 0)
    changes = [
        lambda p: p.mul_(0.9),
        lambda p: setattr(p, "data", p.data * 1.2),
        lambda p: p.data.copy_(p.data.flip(-1) * 0.8),
    ]
    for change in changes:
        for parameter in network.parameters():
            change(parameter)
        assert_near(network.prepare(mu, times, None)(x, mu, 0), network(x, mu, times))


@torch.no_grad()
def test_local_averages_stay_local() -> None:
    network = small("refusion").to(memory_format=torch.channels_last)
    x, mu = images(64, 48, 2)
    everywhere = network(x, mu, torch.ones(2))
    localise(network, 16)
    plain = network(x, mu, torch.ones(2))
    assert (plain - everywhere).abs().max() > 1e-3 * plain.abs().max()
    assert_near(network.prepare(mu, torch.ones(1), None)(x, mu, 0), plain)


def test_a_fast_copy_shares_the_parameters_and_leaves_the_network() -> None:
    network = small("irsde")
    fast = fast_copy(network)
    assert [id(p) for p in fast.parameters()] == [id(p) for p in network.parameters()]
    assert not any(type(m).__name__.startswith("Fast") for m in network.modules())
    assert any(type(m).__name__.startswith("Fast") for m in fast.modules())


@pytest.mark.parametrize("m_size", [(64, 80), (20, 18), (17, 5)])
@torch.no_grad()
def test_winograd_is_the_convolution(m_size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 12, 3, 3, generator=generator)
    x = torch.randn(2, 12, *m_size, generator=generator)
    assert_near(winograd_conv(x, weight), F.conv2d(x, weight, padding=1))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 5), st.integers(1, 5))
def test_winograd_takes_any_size(height: int, width: int, inputs: int, outputs: int) -> None:
    x, weight = torch.rand(1, inputs, height, width), torch.rand(outputs, inputs, 3, 3)
    torch.testing.assert_close(winograd_conv(x, weight), F.conv2d(x, weight, padding=1))


@torch.no_grad()
def test_wide_blocks_take_winograd() -> None:
    generator = torch.Generator().manual_seed(0)
    block = ResBlock(256, 256, 8)
    for parameter in block.parameters():
        parameter.data.normal_(std=0.05, generator=generator)
    assert pays(block.block1.proj.weight)
    x, film = torch.randn(1, 256, 16, 16, generator=generator), torch.randn(1, 512)
    x = x.to(memory_format=torch.channels_last)
    assert_near(fast_copy(block)(x, film), block(x, film))


@torch.no_grad()
def test_attention_over_more_pixels_than_a_group() -> None:
    """The softmax over the pixels is summed group by group; later keys may be larger."""
    attention = Prenorm(8, LinearAttention(8))
    for parameter in attention.parameters():
        parameter.data.normal_(generator=torch.Generator().manual_seed(1))
    x = torch.linspace(-3, 9, 8 * 128 * 96).reshape(1, 8, 128, 96).sin()
    x[..., 64:, :] *= torch.linspace(1, 30, 8)[:, None, None]
    x = x.to(memory_format=torch.channels_last)
    assert_near(fast_copy(attention)(x), attention(x))


@torch.no_grad()
def test_upsampling_is_one_transposed_convolution() -> None:
    up = Upsample(6, 4)
    x = torch.randn(2, 6, 5, 7).to(memory_format=torch.channels_last)
    assert_near(fast_copy(up)(x), up(x))


def test_what_is_derived_from_a_weight_is_made_once_until_it_changes() -> None:
    weight, calls = nn.Parameter(torch.ones(3)), []

    def twice(w: Tensor) -> Tensor:
        calls.append(1)
        return 2 * w

    first = derived(weight, "twice", twice)
    forget_changed(nn.ParameterList([weight]))
    assert derived(weight, "twice", twice) is first
    with torch.no_grad():
        weight.add_(1)
    forget_changed(nn.ParameterList([weight]))
    assert torch.equal(derived(weight, "twice", twice), torch.full((3,), 4.0))
    assert len(calls) == 2


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@torch.no_grad()
def test_filters_are_derived_anew_after_writes_to_data(layout: torch.memory_format) -> None:
    """The version counter does not see these, and the storage stays."""
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(8, 12, 3, 3, generator=generator).to(memory_format=layout))
    averaged = torch.randn(8, 12, 3, 3, generator=generator)
    x = torch.randn(1, 12, 20, 18, generator=generator)
    version = weight._version
    module = nn.Conv2d(12, 8, 3, bias=False)
    module.weight = weight
    winograd_conv(x, weight)
    swaps = [averaged, averaged.flip(0), averaged.flip(-1), averaged.roll(1, 1)]
    for other in swaps:  # the same numbers in other places, too
        weight.data.copy_(other)
        assert weight._version == version
        forget_changed(module)
        assert_near(winograd_conv(x, weight), F.conv2d(x, weight, padding=1))
    module.load_state_dict({"weight": -averaged})
    forget_changed(module)
    assert_near(winograd_conv(x, weight), F.conv2d(x, weight, padding=1))


def denoiser(name: str = "irsde") -> Denoiser:
    process = MRProcess(TabulatedTheta.irsde("cosine"), 10 / 255)
    return Denoiser(made(name), process, NOISE)


class Unprepared:
    """A denoiser without ``prepare``."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.process = denoiser.process

    def __call__(self, x: Tensor, t: Tensor, mu: Tensor) -> object:
        return self.denoiser(x, t, mu)


@pytest.mark.parametrize("name", ["mr-ode-2", "mr-sde-1", "fidelity", *BASELINES])
def test_samplers_prepare_without_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = denoiser()
    _, mu = images(32, 32, 1)
    sampler = make_sampler(name, nfe=4)
    prepare, runs, calls = model.network.prepare, list[int](), list[int]()

    def counted(mu: Tensor, times: Tensor, context: None) -> Callable[..., Tensor]:
        runs.append(len(times))
        run = prepare(mu, times, context)
        return lambda *given: (calls.append(1), run(*given))[1]

    monkeypatch.setattr(model.network, "prepare", counted)
    with torch.no_grad():
        out = sampler(model, mu, torch.Generator().manual_seed(0))
        plain = sampler(Unprepared(model), mu, torch.Generator().manual_seed(0))
    sampler(model, mu, torch.Generator().manual_seed(0)).sum().backward()
    assert (runs, len(calls)) == ([4], 4)
    assert next(model.parameters()).grad is not None
    torch.testing.assert_close(out, plain, atol=1e-4, rtol=0)


@torch.no_grad()
def test_tiles_are_prepared() -> None:
    model = denoiser("refusion")
    _, mu = images(96, 130, 1)
    sampler = MRSampler(nfe=2)
    noise = torch.randn(mu.shape, generator=torch.Generator().manual_seed(0))
    tiled = TiledDenoiser(model, 64, 16)
    assert isinstance(tiled.prepare(mu, [1.0]).denoiser, PreparedDenoiser)
    out = sampler(tiled, mu, lambda step, shape: noise)
    plain = sampler(TiledDenoiser(Unprepared(model), 64, 16), mu, lambda step, shape: noise)
    torch.testing.assert_close(out, plain, atol=1e-4, rtol=0)


def hook(network: nn.Module) -> None:
    network.mid_block1.register_forward_hook(lambda *_: None)


def reparametrize(network: nn.Module) -> None:
    nn.utils.parametrizations.weight_norm(network.final_conv)


@pytest.mark.parametrize("change", [hook, reparametrize])
@torch.no_grad()
def test_networks_with_more_than_their_weights_are_called_as_they_are(
    change: Callable[[nn.Module], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, mu = images(32, 32, 1)
    model = copy.deepcopy(denoiser())
    change(model.network)
    monkeypatch.setattr(model.network, "prepare", lambda *_: pytest.fail("it was prepared"))
    assert torch.equal(prepared(model, mu, [0.5])(x, 0.5, mu).x0, model(x, 0.5, mu).x0)


@torch.no_grad()
def test_the_task_is_judged_once_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepared, with hooks and therefore not, and by the network itself."""
    model = Denoiser(made("unet of tasks"), MRProcess(), NOISE)
    x, mu = images(32, 32, 1)
    plain = MRSampler(nfe=4)(Unprepared(model), mu, torch.Generator().manual_seed(0))
    judged: list[int] = []
    classify = model.network.classify
    monkeypatch.setattr(model.network, "classify", lambda mu: (judged.append(1), classify(mu))[1])
    ways = [lambda: None, lambda: model.network.tail.register_forward_hook(lambda *_: None)]
    for change in ways:
        change()
        out = MRSampler(nfe=4)(model, mu, torch.Generator().manual_seed(0))
        assert len(judged) == 1
        torch.testing.assert_close(out, plain, atol=1e-4, rtol=0)
        judged.clear()
    run = model.network.prepare(mu, torch.tensor([1.0, 0.6, 0.3]), None)
    for i in range(3):
        run(x, mu, i)
    assert len(judged) == 1


@torch.no_grad()
def test_a_time_that_was_not_announced_is_answered_too() -> None:
    model = denoiser()
    x, mu = images(32, 32, 1)
    ready = prepared(model, mu, [1.0, 0.5])
    assert torch.equal(ready(x, 0.3, mu).x0, model(x, 0.3, mu).x0)


def test_the_blocks_of_other_widths_are_checked() -> None:
    with pytest.raises(ValueError, match="as many levels, got 2 and 1"):
        RefusionNAFNet(width=8, encoder=(1, 1), decoder=(1,))
