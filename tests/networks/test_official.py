"""The official networks: their numbers, the names and shapes of their weights.

``data/networks`` holds what the official code returned for the inputs and weights made here, and
the names and shapes of its networks' weights at full size.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mrdiff.networks import DACLIPUNet, IRSDEUNet, RefusionNAFNet
from mrdiff.networks.blocks.parts import raw_time
from tests.places import TEST_DATA

DATA = TEST_DATA / "networks"
OUTPUTS = load_file(DATA / "outputs.safetensors")
NAMES = ["irsde", "daclip", "wild-ir", "refusion"]


def small(name: str, **options: object) -> nn.Module:
    """The small network of a name, with weights made from their names."""
    made: nn.Module
    match name:
        case "irsde":
            made = IRSDEUNet(width=8, depth=4, **options)
        case "daclip":
            made = DACLIPUNet(width=16, multipliers=(1, 2, 2, 4), **options)
        case "wild-ir":
            made = DACLIPUNet(
                width=32, multipliers=(1, 2, 2), text=False, half_size=True, **options
            )
        case _:
            made = RefusionNAFNet(width=8, encoder=(1, 1, 1, 3), **options)
    for key, parameter in made.named_parameters():
        parameter.data = weight(key, tuple(parameter.shape))
    return made.eval()


def weight(key: str, shape: tuple[int, ...]) -> Tensor:
    rng = np.random.default_rng(list(key.encode()))
    uniform = rng.random(int(np.prod(shape))).reshape(shape) * 2 - 1
    inputs = np.prod(shape[1:]) if len(shape) > 1 and shape[0] > 1 else 25
    gain = key.endswith(".g") or ("norm" in key and key.endswith("weight"))
    return torch.from_numpy(gain + uniform * (3 / inputs) ** 0.5).float()


def images(height: int, width: int, batch: int) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng([height, width, batch])
    x, mu = (torch.from_numpy(rng.random((batch, 3, height, width))).float() for _ in range(2))
    return x, mu


def features(batch: int) -> dict[str, Tensor]:
    rng = np.random.default_rng(batch)
    text, image = (torch.from_numpy(rng.random((batch, 512)) * 2 - 1).float() for _ in range(2))
    return {"text": text, "image": image}


def context_of(name: str, batch: int) -> dict[str, Tensor] | None:
    match name:
        case "daclip":
            return features(batch)
        case "wild-ir":
            return {"image": features(batch)["image"]}
    return None


def assert_equal_to_official(out: Tensor, key: str) -> None:
    official = OUTPUTS[key]
    assert out.shape == official.shape
    assert (out - official).abs().max() < 1e-5 * official.abs().max()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("size", "times"), [((32, 48), [50]), ((37, 51), [3, 100])])
@torch.no_grad()
def test_numbers_of_the_official_code(
    name: str, layout: torch.memory_format, size: tuple[int, int], times: list[int]
) -> None:
    network = small(name).to(memory_format=layout)
    x, mu = images(*size, len(times))
    context = context_of(name, len(times))
    out = network(x, mu, torch.tensor(times) / 100, context)
    assert_equal_to_official(out, f"{name}.{size[0]}x{size[1]}")


@torch.no_grad()
def test_a_degradation_may_be_left_out() -> None:
    x, mu = images(37, 51, 2)
    context = {"image": features(2)["image"]}
    out = small("daclip")(x, mu, torch.tensor([0.03, 1.0]), context)
    assert_equal_to_official(out, "daclip.37x51.no_text")


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("irsde", IRSDEUNet, {}),
        ("daclip", DACLIPUNet, {}),
        ("wild-ir", DACLIPUNet, {"context_width": 768, "text": False, "half_size": True}),
        ("refusion", RefusionNAFNet, {}),
    ],
)
def test_weights_of_the_full_size_have_the_official_names_and_shapes(
    name: str, kind: type[nn.Module], options: dict[str, Any]
) -> None:
    official = json.loads((DATA / "state_dicts.json").read_text())[name]
    with torch.device("meta"):
        ours = {key: list(value.shape) for key, value in kind(**options).state_dict().items()}
    assert ours == official


@pytest.mark.parametrize("tiles", [False, True])
@torch.no_grad()
def test_half_the_size_made_ready_for_a_run(tiles: bool) -> None:
    network = small("wild-ir").to(memory_format=torch.channels_last)
    x, mu = images(37, 51, 2)
    times = torch.tensor([0.03, 1.0])
    context = context_of("wild-ir", 2)
    run = network.prepare(None if tiles else mu, times, context)
    for i, t in enumerate(times):
        plain = network(x, mu, t.expand(2), context)
        assert (run(x, mu, i) - plain).abs().max() < 1e-5 * plain.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_any_size(name: str) -> None:
    network = small(name)
    context = context_of(name, 1)
    for height, width in ((1, 1), (5, 40), (16, 16), (17, 23)):
        x, mu = images(height, width, 1)
        out = network(x, mu, torch.ones(1), context)
        assert out.shape == x.shape
        assert out.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_gradient_checkpointing_gives_the_same_gradients(name: str) -> None:
    x, mu = images(16, 24, 2)
    context = context_of(name, 2)
    gradients = []
    for checkpointing in (False, True):
        network = small(name, gradient_checkpointing=checkpointing).train()
        network(x, mu, torch.tensor([0.2, 0.9]), context).square().mean().backward()
        gradients.append({k: p.grad for k, p in network.named_parameters()})
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][key], msg=key)


@pytest.mark.parametrize("name", ["irsde", "refusion"])
def test_a_context_that_is_not_taken_is_refused(name: str) -> None:
    x, mu = images(16, 16, 1)
    with pytest.raises(ValueError, match="takes no context, got text"):
        small(name)(x, mu, torch.ones(1), {"text": torch.ones(1, 512)})


def test_daclip_says_what_is_wrong_with_its_context() -> None:
    x, mu = images(16, 16, 1)
    with pytest.raises(ValueError, match="takes no task"):
        small("daclip")(x, mu, torch.ones(1), {"task": torch.ones(1, 3)})
    with pytest.raises(ValueError, match="needs the feature 'image'"):
        small("daclip")(x, mu, torch.ones(1))


@pytest.mark.parametrize("steps", [50, 100, 1000])
def test_official_times_are_whole(steps: int) -> None:
    whole = torch.arange(1, steps + 1)
    assert torch.equal(raw_time(whole / steps, steps), whole.float())
    between = torch.tensor([0.3701, 0.9949])
    assert torch.equal(raw_time(between, 100), between * 100)
