"""What snow must look like: coverage, depth, motion, veil and strength."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules.degradations.base import to_8_bit
from datamodules.degradations.snow import Snow, _Flakes, _opacity, _optical_depth
from mrdiff.photo import read_rgb
from tests.places import SHARED

SNOWY = SHARED / "data" / "paired" / "snowy"


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _photo(height: int = 40, width: int = 56) -> Tensor:
    return to_8_bit(torch.rand(3, height, width, generator=_generator(0)))


def _one(y: float, x: float, motion: float = 0.0, angle: float = 0.0) -> _Flakes:
    values = (y, x, 3.0, motion, angle, 0.8, 0.4)
    return _Flakes(*(torch.tensor([value]) for value in values))


@pytest.mark.parametrize(
    "nothing",
    [{"opacity": (0.0, 0.0)}, {"density": (0.0, 0.0)}, {"layers": (0, 0)}],
    ids=["opacity", "density", "layers"],
)
def test_snow_of_no_strength_changes_nothing(nothing: dict[str, tuple[float, float]]) -> None:
    image = _photo()
    for seed in range(5):
        snow = Snow(veil=(0.0, 0.0), **nothing)  # type: ignore[arg-type]
        assert torch.equal(snow.degrade(image, _generator(seed)), image)


def test_snow_only_adds_light_and_without_a_veil_no_colour() -> None:
    image = torch.full((3, 64, 64), 51 / 255)
    for seed in range(8):
        assert bool((Snow().degrade(image, _generator(seed)) >= image).all())
        added = Snow(veil=(0.0, 0.0)).degrade(image, _generator(seed)) - image
        assert torch.equal(added[0], added[1])


def test_a_flake_is_drawn_where_it_is_and_cut_at_the_border() -> None:
    # The slow and obvious picture: its opacity at every pixel, with no frame and no index.
    for y, x in ((10.3, 12.7), (0.2, 30.9), (-2.5, -3.1), (24.0, 31.0)):
        flake = _one(y, x, motion=4.0, angle=0.5)
        rows, columns = torch.arange(24.0)[:, None, None], torch.arange(32.0)[:, None]
        expected = 0.995 * _opacity(flake, rows - y, columns - x, 0.5)[..., 0]
        drawn = -torch.expm1(-_optical_depth(flake, 0.5, 24, 32))
        assert torch.allclose(drawn.float(), expected, atol=1e-5)


def test_what_two_flakes_let_through_is_multiplied() -> None:
    once = torch.exp(-_optical_depth(_one(10, 10), 0.5, 20, 20))
    pair = _Flakes(*(field.repeat(2) for field in _one(10, 10)))
    assert torch.allclose(torch.exp(-_optical_depth(pair, 0.5, 20, 20)), once * once)


def test_density_is_the_share_of_the_picture_that_a_far_layer_covers() -> None:
    # Flakes of one size with hard edges; with nearness n the density falls as
    # 0.1 + 0.9 (1 - n)^2, which is 0.4 on average.
    snow = Snow(
        severity=(1.0, 1.0),
        layers=(1, 1),
        density=(0.3, 0.3),
        size=(8.0, 8.0),
        softness=(0.0, 0.0),
        opacity=(1.0, 1.0),
        streak=(1.0, 1.0),
    )
    covered = [
        float((snow.render(96, 96, _generator(s)) > 0.2).double().mean()) for s in range(200)
    ]
    assert np.mean(covered) == pytest.approx(0.3 * 0.4, rel=0.12)


def test_near_flakes_are_larger_fewer_and_faster() -> None:
    far, near = (Snow()._flakes(n, 1.0, 0.0, 2.0, 256, 256, _generator(0)) for n in (0.1, 0.9))
    assert float(near.radius.mean()) > 4 * float(far.radius.mean())
    assert float(near.motion.mean()) > 4 * float(far.motion.mean())
    assert len(near.y) < len(far.y) / 20


def test_flakes_move_along_the_given_angle() -> None:
    # Along its motion the snow is most like itself: 30 degrees is down and to the right.
    snow = Snow(angle=(30.0, 30.0), spread=(0.0, 0.0), streak=(6.0, 6.0), size=(4.0, 4.0))
    picture = snow.render(256, 256, _generator(1))
    likeness = {}
    for degrees in range(-60, 61, 10):
        down = round(12 * math.cos(math.radians(degrees)))
        right = round(12 * math.sin(math.radians(degrees)))
        likeness[degrees] = float((picture * picture.roll((down, right), (0, 1))).mean())
    assert max(likeness, key=lambda degrees: likeness[degrees]) == 30


def test_a_patch_of_snow_has_no_borders() -> None:
    # Flakes fall in from outside: the rim is as snowy as the middle.
    snow = torch.stack([Snow().render(32, 32, _generator(seed)) for seed in range(500)]).mean(0)
    rim = torch.cat([snow[0], snow[-1], snow[:, 0], snow[:, -1]]).mean()
    assert float(rim) == pytest.approx(float(snow[8:24, 8:24].mean()), rel=0.1)


def test_the_share_of_snow_does_not_depend_on_the_size_of_the_picture() -> None:
    snow = Snow(severity=(0.5, 0.5), layers=(3, 3), density=(0.2, 0.2), size=(2.0, 6.0))
    small = np.mean([float(snow.render(64, 64, _generator(seed)).mean()) for seed in range(80)])
    large = np.mean([float(snow.render(256, 384, _generator(seed)).mean()) for seed in range(20)])
    assert small == pytest.approx(large, rel=0.2)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_veil_is_its_formula(channels: int) -> None:
    image = _photo()[:channels]
    snow = Snow(
        layers=(0, 0), veil=(0.3, 0.3), veil_probability=1.0, airlight=(0.5, 0.5), glow=(1.5, 1.5)
    )
    grey = image if channels == 1 else 0.299 * image[:1] + 0.587 * image[1:2] + 0.114 * image[2:]
    expected = 0.7 * image + 0.3 * torch.maximum(image, 0.5 + 1.5 * grey)
    veiled = snow.degrade(image, _generator(0))
    assert torch.allclose(veiled, expected.clamp(max=1), atol=0.51 / 255)


def test_screen_and_additive_are_their_formulas() -> None:
    image = _photo() * 0.8
    for probability in (0.0, 1.0):
        snow = Snow(screen_probability=probability, veil=(0.0, 0.0))
        white = snow.degrade(image, _generator(3))
        generator = _generator(3)
        for _ in range(5):  # the compositing and the four numbers of the veil are drawn first
            torch.rand((), generator=generator)
        flakes = snow.render(40, 56, generator)
        added = flakes * (1 - image) if probability else flakes
        assert torch.allclose(white, (image + added).clamp(max=1).float(), atol=0.51 / 255)


def test_the_result_has_no_graph() -> None:
    assert not Snow().degrade(_photo().requires_grad_(), _generator(0)).requires_grad


@pytest.mark.parametrize(
    "wrong",
    [
        {"angle": (20.0, -20.0)},
        {"density": (0.1, 1.5)},
        {"size": (0.0, 4.0)},
        {"veil": (0.0, 1.1)},
        {"veil_probability": -0.5},
        {"screen_probability": 1.5},
    ],
)
def test_impossible_ranges_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Snow(**wrong)  # type: ignore[arg-type]


def _psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


@pytest.mark.skipif(not SNOWY.is_dir(), reason="needs the benchmark pairs in ../shared/data")
def test_default_snow_spans_the_strength_of_the_benchmark() -> None:
    clean = [read_rgb(path) for path in sorted((SNOWY / "GT").iterdir())]
    degraded = [read_rgb(path) for path in sorted((SNOWY / "LQ").iterdir())]
    theirs = [_psnr(a, b) for a, b in zip(degraded, clean, strict=True)]
    ours = [_psnr(Snow().degrade(c, _generator(7 * k)), c) for k, c in enumerate(clean * 4)]
    # The benchmark is the dense half; the sparse soft flakes of Snow100K are the other half.
    assert np.quantile(ours, 0.05) < min(theirs) + 2
    assert np.quantile(ours, 0.6) > max(theirs) - 2
    assert np.quantile(ours, 0.9) > 18
