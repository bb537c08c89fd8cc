"""What snow must look like: coverage, depth, motion, veil and strength."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules.degradations.base import to_8_bit
from datamodules.degradations.packing import packed
from datamodules.degradations.snow import Snow, _seen, covered, opacity
from datamodules.degradations.spans import PIECE, rectangles
from mrdiff.photo import read_rgb
from tests.places import SHARED

SNOWY = SHARED / "data" / "paired" / "snowy"


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _photo(height: int = 40, width: int = 56) -> Tensor:
    return to_8_bit(torch.rand(3, height, width, generator=_generator(0)))


def _one(y: float, x: float, motion: float = 0.0, angle: float = 0.0) -> np.ndarray:
    """A flake, ``[fields, 1]``."""
    return np.array([y, x, 3.0, motion, angle, 0.8, 0.4, 0.5], np.float32)[:, None]


def _shown(flakes: np.ndarray, height: int, width: int) -> Tensor:
    return covered(packed([_seen(flakes, height, width)]), 1, height, width)[0]


def _rendered(snow: Snow, height: int, width: int, generator: torch.Generator) -> Tensor:
    draws = packed([snow.falling(generator, height, width)])
    return covered(draws, 1, height, width)[0]


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
    # The slow and obvious picture: its opacity at every pixel, six of which are a piece.
    rows, columns = torch.arange(24), torch.arange(0, 32 + PIECE, PIECE)
    everywhere = torch.cartesian_prod(rows, columns)
    for y, x in ((10.3, 12.7), (0.2, 30.9), (-2.5, -3.1), (24.0, 31.0)):
        for angle in (0.0, 0.5, -1.2, math.pi / 2, 3.0):
            flake = _one(y, x, motion=4.0, angle=angle)
            whose = torch.zeros(len(everywhere), dtype=torch.long)
            expected = 0.995 * opacity(torch.from_numpy(flake.T), whose, everywhere)
            expected = expected.T.reshape(24, -1)[:, :32]
            assert torch.allclose(_shown(flake, 24, 32), expected, atol=1e-5)


def test_pieces_hold_all_points_of_rectangles_once() -> None:
    rng, (height, width) = np.random.default_rng(0), (30, 41)
    for _ in range(200):
        y, x = rng.uniform(-20, 60, (2, 1))
        angle, half_length, half_width = rng.uniform((-3.2, 0.2, 0.2), (3.2, 15, 8))[:, None]
        counts, places = rectangles(
            y, x, angle, half_length, half_width, height=height, width=width
        )
        assert int(counts) == len(places)
        held = np.zeros((height, width + PIECE), int)
        for row, column in places.tolist():
            held[row, column : column + PIECE] += 1
        dy, dx = np.arange(height)[:, None] - y, np.arange(width) - x
        along, across = dx * np.sin(angle) + dy * np.cos(angle), dx * np.cos(angle)
        inside = (np.abs(along) <= half_length) & (
            np.abs(across - dy * np.sin(angle)) <= half_width
        )
        assert held.max(initial=0) <= 1
        assert held[:, :width][inside].all()
        assert held[:, :width].sum() <= (inside.sum(1) + (PIECE - 1) * inside.any(1)).sum()


def test_what_two_flakes_let_through_is_multiplied() -> None:
    once = 1 - _shown(_one(10, 10), 20, 20)
    pair = np.concatenate([_one(10, 10)] * 2, axis=1)
    assert torch.allclose(1 - _shown(pair, 20, 20), once * once, atol=1e-6)


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
    pictures = [_rendered(snow, 96, 96, _generator(seed)) for seed in range(200)]
    shares = [float((picture > 0.2).double().mean()) for picture in pictures]
    assert np.mean(shares) == pytest.approx(0.3 * 0.4, rel=0.12)


def test_near_flakes_are_larger_fewer_and_faster() -> None:
    layers = (Snow()._layer(n, 1.0, 0.0, 2.0, 256, 256, _generator(0)) for n in (0.1, 0.9))
    (far_radius, far_motion), (radius, motion) = (layer[2:4] for layer in layers)
    assert radius.mean() > 4 * far_radius.mean()
    assert motion.mean() > 4 * far_motion.mean()
    assert len(radius) < len(far_radius) / 20


def test_flakes_move_along_the_given_angle() -> None:
    # Along its motion the snow is most like itself: 30 degrees is down and to the right.
    snow = Snow(angle=(30.0, 30.0), spread=(0.0, 0.0), streak=(6.0, 6.0), size=(4.0, 4.0))
    picture = _rendered(snow, 256, 256, _generator(1))
    likeness = {}
    for degrees in range(-60, 61, 10):
        down = round(12 * math.cos(math.radians(degrees)))
        right = round(12 * math.sin(math.radians(degrees)))
        likeness[degrees] = float((picture * picture.roll((down, right), (0, 1))).mean())
    assert max(likeness, key=lambda degrees: likeness[degrees]) == 30


def test_a_patch_of_snow_has_no_borders() -> None:
    # Flakes fall in from outside: the rim is as snowy as the middle.
    snow = torch.stack([_rendered(Snow(), 32, 32, _generator(seed)) for seed in range(500)]).mean(0)
    rim = torch.cat([snow[0], snow[-1], snow[:, 0], snow[:, -1]]).mean()
    assert float(rim) == pytest.approx(float(snow[8:24, 8:24].mean()), rel=0.1)


def test_the_share_of_snow_does_not_depend_on_the_size_of_the_picture() -> None:
    snow = Snow(severity=(0.5, 0.5), layers=(3, 3), density=(0.2, 0.2), size=(2.0, 6.0))
    small = np.mean([float(_rendered(snow, 64, 64, _generator(seed)).mean()) for seed in range(80)])
    large = np.mean(
        [float(_rendered(snow, 256, 384, _generator(seed)).mean()) for seed in range(20)]
    )
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
        flakes = _rendered(snow, 40, 56, generator)
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
