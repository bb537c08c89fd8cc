"""Motion blur: PSFs that are centred to a fraction of a pixel, and the convolution with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from datamodules.degradations.convolution import convolve
from datamodules.degradations.motion_blur import MotionBlur, draw_psf
from mrdiff.photo import read_rgb
from tests.places import SHARED

DATA = SHARED / "data"

ONE = (1.0, 1.0)


def _psfs(blur: MotionBlur, count: int = 40) -> list[Tensor]:
    return [blur.psf(torch.Generator().manual_seed(seed)) for seed in range(count)]


def _moments(psf: Tensor) -> tuple[Tensor, Tensor]:
    """Centroid ``[2]`` from the middle and covariance ``[2, 2]`` in pixels."""
    line = torch.arange(len(psf), dtype=torch.float64) - len(psf) // 2
    grid = torch.stack(torch.meshgrid(line, line, indexing="ij"))
    centroid = (grid * psf).sum((1, 2))
    offset = (grid - centroid[:, None, None]).flatten(1)
    return centroid, (offset * psf.flatten()) @ offset.T


def _photo(channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    values = np.random.default_rng(seed).integers(0, 256, (channels, height, width))
    return torch.from_numpy(values).float() / 255


def test_a_psf_is_a_centred_distribution_of_odd_size() -> None:
    for psf in _psfs(MotionBlur()):
        assert psf.shape[0] == psf.shape[1]
        assert psf.shape[0] % 2 == 1
        assert float(psf.min()) >= 0
        assert float(psf.sum()) == pytest.approx(1, abs=1e-12)
        assert _moments(psf)[0].abs().max() < 1e-9


def test_points_are_placed_to_a_fraction_of_a_pixel() -> None:
    # Two points 2.6 pixels apart: each goes to the pixels around it by its distance from them.
    psf = draw_psf(np.array([0, 2.6 + 0j]))
    expected = torch.zeros(5, 5, dtype=torch.float64)
    expected[2] = torch.tensor([0.15, 0.35, 0.0, 0.35, 0.15])
    assert torch.allclose(psf, expected)


def test_where_the_path_lies_does_not_matter() -> None:
    points = np.random.default_rng(0).random((200, 2)) @ [9, 9j]
    assert torch.allclose(draw_psf(points), draw_psf(points + 3.37 - 8.21j))


def test_second_moments_are_those_of_the_path() -> None:
    points = np.random.default_rng(0).standard_normal((4000, 2)) @ [4, 1j]
    covariance = _moments(draw_psf(points))[1]
    truth = torch.from_numpy(np.cov(points.imag, points.real, bias=True))
    # A bilinear share of one pixel adds f (1 - f), on average 1/6, to a variance.
    added = (covariance - truth).diagonal()
    assert torch.allclose(added, torch.full((2,), 1 / 6, dtype=torch.float64), atol=0.02)


@pytest.mark.parametrize("extent", [4.0, 12.5, 25.0])
def test_extent_is_the_size_of_the_path(extent: float) -> None:
    for psf in _psfs(MotionBlur(extent=(extent, extent)), 20):
        rows, columns = torch.nonzero(psf > 0, as_tuple=True)
        side = max(int(rows.max() - rows.min()), int(columns.max() - columns.min()))
        assert extent - 1.01 <= side <= extent + 2


def _straightness(psf: Tensor) -> float:
    """Minor over major axis: 0 is a line without width, 1 is round."""
    small, large = torch.linalg.eigvalsh(_moments(psf)[1]).tolist()
    return float((small / large) ** 0.5)


def test_paths_are_not_only_straight_lines() -> None:
    lines = _psfs(MotionBlur(extent=(20.0, 20.0), inertia=(100.0, 100.0), jerks=(0.0, 0.0)))
    shakes = _psfs(MotionBlur(extent=(20.0, 20.0)))
    assert np.median([_straightness(psf) for psf in lines]) < 0.12
    assert np.median([_straightness(psf) for psf in shakes]) > 0.2
    # A jerk turns a straight path without any other push.
    jerked = _psfs(MotionBlur(extent=(20.0, 20.0), inertia=(100.0, 100.0), jerks=(4.0, 4.0)))
    assert np.median([_straightness(psf) for psf in jerked]) > 0.15


def test_all_directions_are_alike() -> None:
    covariances = torch.stack([_moments(psf)[1] for psf in _psfs(MotionBlur(), 400)])
    mean = covariances.mean(0)
    assert float(mean[0, 0] / mean[1, 1]) == pytest.approx(1, abs=0.25)
    assert abs(float(mean[0, 1] / mean[0, 0])) < 0.15


@pytest.mark.parametrize("size", [(8, 8), (8, 30), (33, 17)])
def test_convolution_is_the_sum_it_stands_for(size: tuple[int, int]) -> None:
    image = _photo(2, *size).double()
    psf = torch.rand(7, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wide = np.pad(image.numpy(), ((0, 0), (3, 3), (3, 3)), mode="reflect")
    expected = np.zeros(image.shape)
    for y in range(7):
        for x in range(7):  # a convolution: what lies at -u moves by u
            rows, columns = slice(6 - y, 6 - y + size[0]), slice(6 - x, 6 - x + size[1])
            expected += float(psf[y, x]) * wide[:, rows, columns]
    assert np.allclose(convolve(image[None], psf[None])[0].numpy(), expected)


def test_borders_are_mirrored_as_often_as_a_small_image_needs() -> None:
    image, psf = _photo(1, 8, 8).double(), torch.full((41, 41), 1 / 41**2, dtype=torch.float64)
    wide = np.pad(image.numpy(), ((0, 0), (20, 20), (20, 20)), mode="reflect")
    assert float(convolve(image[None], psf[None])[0, 0, 0, 0]) == pytest.approx(
        wide[0, :41, :41].mean()
    )


@pytest.mark.parametrize("gamma", [1.0, 2.2])
def test_degrade_is_its_formula(gamma: float) -> None:
    image = _photo(3, 40, 40) * 0.9
    blur = MotionBlur(gamma=(gamma, gamma), highlights=ONE)
    degraded = blur.degrade(image, torch.Generator().manual_seed(4))
    generator = torch.Generator().manual_seed(4)
    torch.rand((), generator=generator), torch.rand((), generator=generator)  # gamma, highlights
    light = convolve((image**gamma).double()[None], blur.psf(generator)[None])[0]
    assert torch.allclose(degraded.double(), light ** (1 / gamma), atol=0.51 / 255)


def test_a_lamp_leaves_a_streak_that_clips() -> None:
    image = torch.zeros(1, 48, 48)
    image[:, 22:26, 22:26] = 1
    bright = {}
    for white in (1.0, 30.0):
        blur = MotionBlur(extent=(20.0, 20.0), highlights=(white, white), gamma=ONE)
        degraded = blur.degrade(image, torch.Generator().manual_seed(1))
        bright[white] = int((degraded == 1).sum())
    assert bright[1.0] == 0
    assert bright[30.0] > 30


def test_grey_stays_grey_and_a_flat_picture_flat() -> None:
    grey = _photo(1, 32, 32).expand(3, -1, -1).contiguous()
    blurred = MotionBlur().degrade(grey, torch.Generator().manual_seed(0))
    assert torch.equal(blurred[0], blurred[1])
    flat = torch.full((3, 20, 20), 77 / 255)
    assert torch.equal(MotionBlur().degrade(flat, torch.Generator().manual_seed(0)), flat)


def test_no_extent_changes_nothing() -> None:
    blur = MotionBlur(extent=(0.0, 0.0), gamma=(1.0, 4.0), highlights=(1.0, 64.0))
    for channels in (1, 3):
        image = _photo(channels, 40, 56)
        for seed in range(5):
            assert torch.equal(blur.degrade(image, torch.Generator().manual_seed(seed)), image)


@pytest.mark.parametrize(
    "wrong",
    [
        {"extent": (25.0, 3.0)},
        {"extent": (-1.0, 3.0)},
        {"inertia": (0.0, 1.0)},
        {"jerks": (-1.0, 1.0)},
        {"gamma": (0.0, 2.0)},
        {"highlights": (0.5, 2.0)},
    ],
)
def test_impossible_ranges_are_refused_by_name(wrong: dict[str, tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} "):
        MotionBlur(**wrong)


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the test photos in ../shared/data")
def test_default_psfs_are_as_wide_and_as_bent_as_measured_ones() -> None:
    real = [np.array(Image.open(path).convert("L")) for path in (DATA / "kernels/levin").iterdir()]
    theirs = [torch.from_numpy(kernel / kernel.sum()) for kernel in real]
    ours = _psfs(MotionBlur(), 200)
    widths = [float(_moments(psf)[1].trace() ** 0.5) for psf in ours]
    measured = [float(_moments(psf)[1].trace() ** 0.5) for psf in theirs]
    assert np.median(widths) == pytest.approx(np.median(measured), rel=0.3)
    assert np.quantile(widths, 0.05) < min(measured)
    assert max(widths) > max(measured)
    bent = np.median([_straightness(psf) for psf in theirs])
    assert np.median([_straightness(psf) for psf in ours]) == pytest.approx(bent, rel=0.35)


def _psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the test photos in ../shared/data")
def test_default_blur_is_as_strong_as_real_shake() -> None:
    pairs = DATA / "paired" / "motion-blurry"
    names = sorted(path.name for path in (pairs / "GT").glob("levin*"))
    clean = [read_rgb(pairs / "GT" / name) for name in names]
    theirs = [_psnr(read_rgb(pairs / "LQ" / name), c) for name, c in zip(names, clean, strict=True)]
    generator = torch.Generator().manual_seed(0)
    ours = [_psnr(MotionBlur().degrade(c, generator), c) for _ in range(3) for c in clean]
    assert np.median(ours) == pytest.approx(np.median(theirs), abs=3)
    assert np.quantile(ours, 0.1) < min(theirs) + 2
    assert np.quantile(ours, 0.9) > max(theirs) - 2


def test_a_patch_with_its_reach_is_blurred_as_the_whole_photo_is() -> None:
    blur, photo = MotionBlur(), torch.rand(3, 160, 160, generator=torch.Generator().manual_seed(0))
    reach, near = blur.reach, 0
    for seed in range(20):
        whole = blur.degrade(photo, torch.Generator().manual_seed(seed))[:, 48:112, 48:112]
        part = photo[:, 48 - reach : 112 + reach, 48 - reach : 112 + reach]
        alone = blur.degrade(part, torch.Generator().manual_seed(seed))
        near += float((alone[:, reach:-reach, reach:-reach] - whole).abs().max()) <= 1.01 / 255
    assert near >= 19  # a path may be less symmetric than is allowed for
