"""Blur of the width asked for, ringing of the cutoff asked for, and what survives resizing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from datamodules.degradations import Chain, Degradation, GaussianBlur, Rain, Resize, SincBlur
from datamodules.degradations.base import Degraded, to_8_bit
from datamodules.degradations.optics import gaussian_kernel, sinc_kernel


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photo(height: int = 40, width: int = 56, seed: int = 0) -> Tensor:
    return to_8_bit(torch.rand(3, height, width, generator=generator(seed)))


def covariance(kernel: Tensor) -> Tensor:
    """The second moments ``[[xx, xy], [xy, yy]]`` of a kernel of sum 1."""
    line = torch.arange(kernel.shape[0], dtype=torch.float64) - kernel.shape[0] // 2
    x, y = line[None], line[:, None]
    xx, xy, yy = ((kernel * m).sum() for m in (x * x, x * y, y * y))
    return torch.stack([torch.stack([xx, xy]), torch.stack([xy, yy])])


class Ink(Degradation):
    """Cuts a black square out of the middle, of a quarter of each side."""

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        return self.degrade_with_mask(image, generator).lq

    def degrade_with_mask(self, image: Tensor, generator: torch.Generator) -> Degraded:
        height, width = image.shape[-2:]
        mask = torch.ones_like(image[:1])
        mask[:, 3 * height // 8 : 5 * height // 8, 3 * width // 8 : 5 * width // 8] = 0
        return Degraded(image * mask, mask)


@pytest.mark.parametrize(("one", "two", "angle"), [(2, 2, 0), (3, 1, 0), (3, 1, 30), (1, 4, 115)])
def test_a_kernel_has_the_covariance_of_its_axes(one: float, two: float, angle: float) -> None:
    turn = torch.tensor(math.radians(angle), dtype=torch.float64)
    axes = torch.stack([turn.cos(), turn.sin()]), torch.stack([-turn.sin(), turn.cos()])
    expected = one**2 * torch.outer(axes[0], axes[0]) + two**2 * torch.outer(axes[1], axes[1])
    kernel = gaussian_kernel((one, two), angle)
    assert float(kernel.sum()) == pytest.approx(1)
    # Four standard deviations hold all but a little of the second moment.
    assert torch.allclose(covariance(kernel), expected, atol=0.02 * max(one, two) ** 2)


def test_the_blur_of_an_impulse_is_as_wide_as_asked_for() -> None:
    line = torch.zeros(1, 64, 65)
    line[..., 32] = 1.0
    blurred = GaussianBlur(sigma=(2.5, 2.5)).degrade(line, generator())[0, 32].double()
    x = torch.arange(65) - 32
    sigma = float((blurred * x**2).sum() / blurred.sum()) ** 0.5
    assert sigma == pytest.approx(2.5, rel=0.05)


def test_a_wave_loses_what_the_gaussian_says() -> None:
    # A Gaussian blur multiplies a wave of frequency w by exp(-(sigma w)^2 / 2).
    w, sigma = 2 * math.pi / 16, 2.0
    wave = (0.5 + 0.4 * torch.cos(w * torch.arange(129.0))).expand(1, 40, 129)
    blurred = GaussianBlur(sigma=(sigma, sigma)).degrade(wave, generator())
    expected = 0.5 + (wave - 0.5) * math.exp(-((sigma * w) ** 2) / 2)
    assert torch.allclose(blurred, expected, atol=2 / 255)


def test_axes_differ_as_often_as_asked_for() -> None:
    dot = torch.zeros(1, 33, 33)
    dot[:, 16, 16] = 1.0

    def round_ones(anisotropic: float) -> int:
        blur = GaussianBlur(sigma=(0.5, 2.0), anisotropic=anisotropic)
        pictures = [blur.degrade(dot, generator(seed)) for seed in range(60)]
        return sum(torch.equal(picture, picture.rot90(1, (1, 2))) for picture in pictures)

    assert round_ones(0.0) == 60
    assert round_ones(1.0) <= 10  # axes may be alike by chance
    assert 15 <= round_ones(0.5) <= 45


def test_the_sinc_filter_passes_below_its_cutoff_alone_and_rings() -> None:
    kernel = sinc_kernel(0.5, 40)
    response = torch.fft.fft2(kernel, s=(256, 256)).abs()
    frequency = torch.fft.fftfreq(256, dtype=torch.float64) * 2  # as a share of the highest
    radius = torch.hypot(frequency[:, None], frequency[None])
    assert torch.allclose(response[radius < 0.4], torch.ones((), dtype=torch.float64), atol=0.08)
    assert float(response[radius > 0.6].max()) < 0.08
    edge = torch.full((1, 32, 64), 0.3)
    edge[..., 32:] = 0.7
    rung = SincBlur(cutoff=(0.4, 0.4), radius=(10, 10)).degrade(edge, generator())
    assert float(rung.max()) > 0.71  # overshoot, which no Gaussian has
    assert float(rung.min()) < 0.29


def test_resizing_keeps_the_mean_and_the_shape() -> None:
    image = photo(61, 90)
    for seed in range(12):
        resized = Resize(scale=(0.3, 0.9)).degrade(image, generator(seed))
        assert resized.shape == image.shape
        assert float(resized.mean()) == pytest.approx(float(image.mean()), abs=0.004)
        assert float(resized.std()) < 0.8 * float(image.std())


def test_resizing_takes_all_its_interpolations() -> None:
    resize = Resize(scale=(0.5, 0.5))
    pictures = {resize.degrade(photo(), generator(seed)).numpy().tobytes() for seed in range(60)}
    assert len(pictures) == 6


@pytest.mark.parametrize("scale", [0.01, 0.4, 1.0, 1.7])
def test_what_happens_inside_happens_at_the_other_size(scale: float) -> None:
    sizes: list[tuple[int, ...]] = []

    class Watch(Degradation):
        def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
            sizes.append(tuple(image.shape))
            return image

    degraded = Resize(scale=(scale, scale), inside=Watch()).degrade(photo(), generator())
    assert degraded.shape == (3, 40, 56)
    assert sizes == [(3, max(8, round(40 * scale)), max(8, round(56 * scale)))]


@pytest.mark.parametrize("scale", [0.4, 1.0, 1.7])
def test_a_resized_hole_covers_all_that_it_touched(scale: float) -> None:
    white, inked = torch.ones(3, 64, 64), Resize(scale=(scale, scale), inside=Ink())
    for seed in range(6):
        degraded = inked.degrade_with_mask(white, generator(seed))
        assert degraded.mask is not None
        assert degraded.mask.shape == (1, 64, 64)
        assert set(degraded.mask.unique().tolist()) == {0.0, 1.0}
        assert bool(degraded.lq[:, degraded.mask[0] == 1].eq(1).all())
        assert 1 / 16 <= float(1 - degraded.mask.mean()) < 0.25
    assert inked.cuts_holes
    assert not Resize(inside=Rain()).cuts_holes
    assert not Chain([Resize()]).cuts_holes


@pytest.mark.parametrize(
    "nothing",
    [
        GaussianBlur(sigma=(0.0, 0.0)),
        SincBlur(radius=(0, 0)),
        Resize(scale=(1.0, 1.0)),
        Resize(scale=(1.0, 1.0), inside=GaussianBlur(sigma=(0.0, 0.0))),
    ],
)
def test_no_strength_changes_nothing(nothing: Degradation) -> None:
    for dtype in (torch.float32, torch.float64):
        image = to_8_bit(photo().to(dtype))
        assert all(torch.equal(nothing.degrade(image, generator(s)), image) for s in range(3))


def test_a_flat_picture_stays_as_it_is() -> None:
    flat = torch.full((3, 8, 9), 77 / 255)
    for degradation in (GaussianBlur(), SincBlur(), Resize(scale=(0.2, 2.0))):
        for seed in range(10):
            assert torch.allclose(degradation.degrade(flat, generator(seed)), flat, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (GaussianBlur, {"sigma": (2.0, 1.0)}),
        (GaussianBlur, {"anisotropic": 1.5}),
        (GaussianBlur, {"angle": (0.0, 200.0)}),
        (SincBlur, {"cutoff": (0.0, 1.0)}),
        (SincBlur, {"radius": (3, 65)}),
        (Resize, {"scale": (0.0, 1.0)}),
    ],
)
def test_impossible_ranges_are_refused_by_name(
    kind: type[Degradation], wrong: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        kind(**wrong)
