"""Properties that every degradation has, and what rain in particular must look like."""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

import datamodules.degradations as package
from datamodules.degradations import (
    JPEG,
    Chain,
    Degradation,
    GaussianBlur,
    GaussianNoise,
    Haze,
    Inpainting,
    LowLight,
    MotionBlur,
    Noise,
    OneOf,
    PoissonGaussianNoise,
    Rain,
    Raindrop,
    Repeat,
    Resize,
    Shadow,
    SincBlur,
    Snow,
    Sometimes,
    Tasks,
)
from datamodules.degradations.base import shape_of
from datamodules.degradations.packing import Draws, packed
from mrdiff.photo import read_rgb
from tests.operations import Count
from tests.places import SHARED

RAINY = SHARED / "data" / "paired" / "rainy"


# Those that cannot be made without arguments.
_EXAMPLES: dict[type[Degradation], Callable[[], Degradation]] = {
    Chain: lambda: Chain([Rain(), Rain()], shuffle=True),
    OneOf: lambda: OneOf([Rain(), Rain(layers=(1, 1))]),
    Sometimes: lambda: Sometimes(Rain(), probability=1.0),
    Repeat: lambda: Repeat(Rain(), times=(1, 2)),
    Tasks: lambda: Tasks({"light": Rain(severity=(0.0, 0.3)), "heavy": Rain(severity=(0.6, 1.0))}),
}


def _below(kind: type[Degradation]) -> list[type[Degradation]]:
    """All that is derived from ``kind``, itself aside."""
    return [found for child in kind.__subclasses__() for found in (child, *_below(child))]


def _degradations() -> list[type[Degradation]]:
    """Every degradation of the package, found by importing all of its modules."""
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    kinds = [kind for kind in _below(Degradation) if not inspect.isabstract(kind)]
    return [kind for kind in kinds if kind.__module__.startswith(f"{package.__name__}.")]


def _made(kind: type[Degradation]) -> Degradation:
    """One of the kind, with its defaults if it has them."""
    return _EXAMPLES.get(kind, kind)()


def _photo(channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    values = np.random.default_rng(seed).integers(0, 256, (channels, height, width))
    return torch.from_numpy(values).float() / 255


def _degraded(degradation: Degradation, image: Tensor, seed: int) -> Tensor:
    return degradation.degrade(image, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", _degradations())
@settings(max_examples=25, deadline=None)
@given(
    channels=st.sampled_from([1, 3]),
    height=st.integers(8, 90),
    width=st.integers(8, 90),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 2**31),
)
def test_keeps_shape_dtype_and_range_and_is_a_function_of_the_seed(
    kind: type[Degradation], channels: int, height: int, width: int, dtype: torch.dtype, seed: int
) -> None:
    image = _photo(channels, height, width).to(dtype)
    before = image.clone()
    degraded = _degraded(_made(kind), image, seed)
    assert degraded.shape == image.shape
    assert degraded.dtype == dtype
    assert 0 <= float(degraded.min()) <= float(degraded.max()) <= 1
    levels = degraded * 255
    assert torch.allclose(levels, levels.round(), atol=1e-3), "not rounded to 8 bits"
    assert torch.equal(image, before), "the input was changed"
    assert torch.equal(degraded, _degraded(_made(kind), image, seed))


@pytest.mark.parametrize("kind", _degradations())
def test_seeds_differ_and_the_global_generator_is_left_alone(kind: type[Degradation]) -> None:
    image = _photo(3, 48, 48) * 0.5
    state = torch.get_rng_state()
    pictures = [_degraded(_made(kind), image, seed) for seed in range(8)]
    assert torch.equal(state, torch.get_rng_state())
    assert len({picture.numpy().tobytes() for picture in pictures}) == 8


@pytest.mark.parametrize("kind", _degradations())
@pytest.mark.parametrize("shape", [(3, 512, 768), (1, 8, 8), (3, 8, 320), (1, 513, 9)])
def test_any_size_grey_and_colour(kind: type[Degradation], shape: tuple[int, int, int]) -> None:
    degraded = _degraded(_made(kind), _photo(*shape), 1)
    assert degraded.shape == shape
    assert bool(torch.isfinite(degraded).all())


@pytest.mark.parametrize("kind", _degradations())
def test_no_gradient_flows_and_the_mask_belongs_to_the_picture(kind: type[Degradation]) -> None:
    made, image = _made(kind), _photo(3, 32, 40)
    degraded = made.degrade_with_mask(image, torch.Generator().manual_seed(3))
    assert not degraded.lq.requires_grad
    assert torch.equal(degraded.lq, _degraded(made, image, 3))
    assert (degraded.mask is not None) == made.cuts_holes
    if degraded.mask is not None:
        assert degraded.mask.shape == (1, 32, 40)
        assert set(degraded.mask.unique().tolist()) <= {0.0, 1.0}


# What the parts of compositions are tested as.
_NESTED = {
    "all": Chain(
        [
            OneOf([Rain(), Snow(), Haze()]),
            Resize(inside=Sometimes(Inpainting(), probability=0.5)),
            Chain([GaussianBlur(), Noise(), Sometimes(SincBlur(), probability=0.5)], shuffle=True),
            Repeat(Shadow(), times=(0, 2)),
        ]
    ),
    "tasks": Tasks({"a": LowLight(), "b": Raindrop(), "c": Inpainting(), "d": MotionBlur()}),
}
_ALL = [*_degradations(), *_NESTED]


def _of(kind: type[Degradation] | str) -> Degradation:
    return _NESTED[kind] if isinstance(kind, str) else _made(kind)


def _drawn(degradation: Degradation, images: Tensor, seed: int) -> list[Draws]:
    """What is drawn for each of the images, one after the other."""
    generator = torch.Generator().manual_seed(seed)
    return [degradation.draw(generator, shape_of(image)) for image in images]


@pytest.fixture
def unrounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Degradations that do not round, so that the least difference is seen."""
    for module in pkgutil.iter_modules(package.__path__):
        name = f"{package.__name__}.{module.name}.to_8_bit"
        monkeypatch.setattr(name, lambda image: image.clamp(0, 1), raising=False)


@pytest.mark.usefixtures("unrounded")
@pytest.mark.parametrize("kind", _ALL)
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((3, 40, 56), torch.float32), ((1, 33, 24), torch.float32), ((3, 72, 64), torch.float64)],
    ids=["colour", "grey", "double"],
)
def test_a_batch_is_its_images_one_by_one(
    kind: type[Degradation] | str, shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    degradation = _of(kind)
    # Of more than 8 bits, as 16-bit files are.
    images = torch.stack([_photo(*shape, seed=i).sqrt() for i in range(7)]).to(dtype)
    draws = _drawn(degradation, images, 4)
    before = images.clone()
    together = degradation.apply(images, degradation.pack(draws))
    assert torch.equal(images, before), "the input was changed"
    assert together.lq.dtype == dtype
    for i, drawn in enumerate(draws):
        one = degradation.apply(images[i : i + 1], degradation.pack([drawn]))
        assert torch.allclose(together.lq[i : i + 1], one.lq, rtol=0, atol=2e-6)
        assert (together.mask is None) == (one.mask is None) == (not degradation.cuts_holes)
        if together.mask is not None and one.mask is not None:
            assert torch.equal(together.mask[i : i + 1], one.mask)


def _moved(draws: Any, device: str) -> Any:
    return apply_to_collection(draws, Tensor, lambda tensor: tensor.to(device))


@pytest.mark.parametrize("kind", _ALL)
def test_nothing_is_waited_for_on_a_device(kind: type[Degradation] | str) -> None:
    degradation = _of(kind)
    assert degradation.on_device == (kind is not JPEG)
    if not degradation.on_device:
        return
    images = torch.rand(5, 3, 48, 40)
    draws = degradation.pack(_drawn(degradation, images, 2))
    # On the meta device there are no values: what reads one fails.
    nowhere = degradation.apply(images.to("meta"), _moved(draws, "meta"))
    assert nowhere.lq.shape == images.shape
    # What reads a value, makes an index of a mask or brings a constant waits for the device.
    with Count() as count, torch.no_grad():
        degradation.apply(images, draws)
    waits = {"_local_scalar_dense", "nonzero", "lift_fresh", "masked_select", "unique"}
    assert not {name for name in count.seen if name.split(".")[1] in waits}


# The strength that changes nothing. JPEG has none: its codec is never lossless.
_NOTHING: dict[type[Degradation], Degradation] = {
    GaussianBlur: GaussianBlur(sigma=(0, 0)),
    GaussianNoise: GaussianNoise(sigma=(0, 0)),
    Haze: Haze(beta=(0, 0)),
    Inpainting: Inpainting(share=(0, 0), half=0),
    LowLight: LowLight(exposure=(0, 0), highlights=(1, 1), cast=(1, 1), shot=(0, 0), read=(0, 0)),
    MotionBlur: MotionBlur(extent=(0, 0)),
    Noise: Noise(sigma=(0, 0), a=(0, 0), b=(0, 0)),
    PoissonGaussianNoise: PoissonGaussianNoise(a=(0, 0), b=(0, 0)),
    Rain: Rain(brightness=(0, 0)),
    Raindrop: Raindrop(density=(0, 0)),
    Resize: Resize(scale=(1, 1)),
    Shadow: Shadow(light=(1, 1)),
    SincBlur: SincBlur(radius=(0, 0)),
    Snow: Snow(veil=(0, 0), layers=(0, 0)),
    Chain: Chain([Rain(brightness=(0, 0)), Haze(beta=(0, 0))]),
    OneOf: OneOf([Haze(beta=(0, 0))]),
    Sometimes: Sometimes(Rain(), probability=0.0),
    Repeat: Repeat(Rain(), times=(0, 0)),
    Tasks: Tasks({"none": Haze(beta=(0, 0))}),
}


def test_every_degradation_can_be_nothing() -> None:
    assert {*_degradations()} - {*_NOTHING} == {JPEG}


@pytest.mark.parametrize("kind", _NOTHING)
@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_changes_nothing(kind: type[Degradation], channels: int) -> None:
    image = _photo(channels, 40, 56)
    for seed in range(5):
        assert torch.equal(_degraded(_NOTHING[kind], image, seed), image)


def _rain(rain: Rain, side: int, generator: torch.Generator) -> Tensor:
    """The light of the streaks alone, ``[side, side]``."""
    return rain.render(packed([rain.fall(generator, side, side)]), 1, side, side)[0]


@pytest.mark.parametrize(
    "nothing",
    [{"brightness": (0.0, 0.0)}, {"density": (0.0, 0.0)}, {"layers": (0, 0)}],
    ids=["brightness", "density", "layers"],
)
def test_rain_of_no_strength_changes_nothing(nothing: dict[str, tuple[float, float]]) -> None:
    image = _photo(3, 40, 56)
    for seed in range(5):
        assert torch.equal(_degraded(Rain(**nothing), image, seed), image)  # type: ignore[arg-type]


def test_rain_without_a_veil_only_adds_light_and_no_colour() -> None:
    image = torch.full((3, 96, 96), 51 / 255)
    for seed in range(10):
        added = _degraded(Rain(), image, seed) - image
        assert float(added.min()) >= 0
        assert torch.equal(added[0], added[1])


def test_screen_rain_never_adds_more_than_additive_rain() -> None:
    image = _photo(3, 64, 64) * 0.9
    for seed in range(5):
        screen = _degraded(Rain(screen_probability=1.0), image, seed)
        assert bool((screen <= _degraded(Rain(screen_probability=0.0), image, seed)).all())


def test_a_full_veil_hides_the_photo() -> None:
    degraded = _degraded(Rain(veil=(1.0, 1.0)), _photo(3, 32, 32), 0)
    assert float(degraded.std()) == pytest.approx(0, abs=1e-6)


def test_more_severity_is_more_rain() -> None:
    image = torch.full((3, 96, 96), 0.4)
    means = []
    for severity in (0.0, 0.5, 1.0):
        rain = Rain(severity=(severity, severity))
        means.append(
            np.mean([float((_degraded(rain, image, s) - image).mean()) for s in range(30)])
        )
    assert 1.8 * means[0] < means[1]
    assert 1.4 * means[1] < means[2]


def test_density_is_the_share_of_the_picture_that_a_layer_covers() -> None:
    # The slow and obvious check of the Poisson rate in the code, on streaks that are not clipped.
    rain = Rain(
        severity=(1.0, 1.0),
        layers=(1, 1),
        density=(0.3, 0.3),
        length=(30.0, 30.0),
        width=(2.0, 2.0),
        brightness=(0.5, 0.5),
    )
    generator = torch.Generator().manual_seed(0)
    covered = [float((_rain(rain, 200, generator) > 0.02).float().mean()) for _ in range(20)]
    assert 0.2 < float(np.mean(covered)) < 0.5


def test_streaks_run_along_the_given_angle() -> None:
    # Along its streaks the rain is most like itself: 30 degrees is down and to the right.
    rain = Rain(angle=(30.0, 30.0), spread=(0.0, 0.0), severity=(0.3, 0.3), length=(30.0, 60.0))
    picture = _rain(rain, 256, torch.Generator().manual_seed(1))
    likeness = {}
    for degrees in range(-60, 61, 10):
        down = round(20 * math.cos(math.radians(degrees)))
        right = round(20 * math.sin(math.radians(degrees)))
        likeness[degrees] = float((picture * picture.roll((down, right), (0, 1))).mean())
    assert max(likeness, key=lambda degrees: likeness[degrees]) == 30


def test_screen_and_additive_are_their_formulas() -> None:
    image = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0))
    for probability in (0.0, 1.0):
        rain = Rain(screen_probability=probability, severity=(0.5, 0.5))
        wet = rain.degrade(image, torch.Generator().manual_seed(3))
        generator = torch.Generator().manual_seed(3)
        for _ in range(3):  # the compositing, the veil and its light are drawn first
            torch.rand((), generator=generator)
        light = _rain(rain, 24, generator)
        added = light * (1 - image) if probability else light
        assert torch.allclose(wet, (image + added).clamp(max=1), atol=0.51 / 255)


def test_a_patch_of_rain_has_no_borders() -> None:
    # Streaks enter from outside: the rim is as rainy as the middle.
    generator = torch.Generator().manual_seed(2)
    rain = torch.stack([_rain(Rain(), 32, generator) for _ in range(400)]).mean(0)
    rim = torch.cat([rain[0], rain[-1], rain[:, 0], rain[:, -1]]).mean()
    assert float(rim) == pytest.approx(float(rain[8:24, 8:24].mean()), rel=0.1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"angle": (20.0, -20.0)},
        {"density": (0.1, 1.5)},
        {"severity": (-0.1, 1.0)},
        {"screen_probability": 1.5},
    ],
)
def test_impossible_ranges_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Rain(**wrong)  # type: ignore[arg-type]


def _psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


@pytest.mark.skipif(not RAINY.is_dir(), reason="needs the benchmark pairs in ../shared/data")
def test_default_rain_is_as_strong_as_that_of_the_benchmark() -> None:
    clean = [read_rgb(path) for path in sorted((RAINY / "GT").iterdir())]
    degraded = [read_rgb(path) for path in sorted((RAINY / "LQ").iterdir())]
    theirs = [_psnr(a, b) for a, b in zip(degraded, clean, strict=True)]
    generator = torch.Generator().manual_seed(0)
    ours = [_psnr(Rain().degrade(c, generator), c) for _ in range(5) for c in clean]
    assert float(np.median(ours)) == pytest.approx(float(np.median(theirs)), abs=4)
    assert np.quantile(ours, 0.1) < min(theirs) + 2  # heavy enough
    assert np.quantile(ours, 0.9) > max(theirs) - 2  # light enough
