"""NIQE and PIQE against other people's programs, and at their edges.

Beside the values below: NIQE has MATLAB's 5.7296 on baboon.png of the BasicSR repository, and in
grey, without ``rgb2ycbcr``, those of the authors' release on the pictures of TID2013 by which
IQA-PyTorch is calibrated: 3.6549 on I04, where nothing is flat, to 12 digits, and 15.746, 3.234,
3.202, 8.668 for 15.754, 3.235, 3.184, 8.635 on the others, whose flat parts are measured by their
rounding there. PIQE has on these MATLAB's 21.62, 35.86, 41.15, 76.95 and 100.00.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import skimage
import torch
from torch import Tensor

from mrdiff.metrics import Meter, niqe, piqe
from mrdiff.photo import read_rgb


def photo(name: str) -> Tensor:
    """Of the scikit-image wheel, ``[1, 3, H, W]``."""
    return read_rgb(Path(skimage.__file__).parent / "data" / name)[None]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("chelsea.png", 2.625524), ("coffee.png", 4.115242), ("rocket.jpg", 6.969155)],
)
def test_niqe_has_the_numbers_of_basicsr(name: str, expected: float) -> None:
    """Which has those of MATLAB (calculate_niqe of BasicSR 1.4.2, on luma)."""
    assert float(niqe(photo(name))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "expected"), [("chelsea.png", 34.016981), ("camera.png", 40.137402)]
)
def test_piqe_has_the_numbers_of_pypiqe(name: str, expected: float) -> None:
    """Version 1.2. On photos whose grey OpenCV rounds as MATLAB does."""
    assert float(piqe(photo(name))) == pytest.approx(expected, abs=1e-4)


def test_they_see_noise_and_blur_without_the_truth() -> None:
    truth = photo("chelsea.png")
    noise = 0.1 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(truth, 7, stride=1, padding=3)
    spoilt = torch.cat([truth, (truth + noise).clamp(0, 1), blurred])
    found = Meter(["niqe", "piqe"])(spoilt, torch.zeros_like(spoilt))
    for values in found.values():
        assert values.dtype == torch.float32
        assert (values[1:] > 1.3 * values[0]).all()
    torch.testing.assert_close(found["niqe"][1:2], niqe(spoilt[1:2]))
    torch.testing.assert_close(found["piqe"][1:2], piqe(spoilt[1:2]))


def test_they_measure_what_is_saved() -> None:
    image = photo("chelsea.png")[..., :200, :200]
    jitter = 0.4 / 255 * torch.rand(image.shape, generator=torch.Generator().manual_seed(0))
    assert float(niqe(image + jitter)) == float(niqe(image))
    assert float(piqe(image + jitter)) == float(piqe(image))


def test_flat_images() -> None:
    flat = torch.full((1, 3, 192, 208), 0.4)
    assert niqe(flat).isnan().all()
    assert piqe(flat).tolist() == [100.0]
    assert piqe(0 * flat).tolist() == [100.0]
    half = photo("chelsea.png")[..., :192, :288].clone()
    half[..., :96, :96] = 1.0  # a block of sky does not count
    assert 1 < float(niqe(half)) < 20


@pytest.mark.parametrize(("metric", "least"), [(niqe, 192), (piqe, 16)])
def test_small_images_are_refused(metric: object, least: int) -> None:
    assert callable(metric)
    assert metric(torch.rand(1, 3, least, least)).isfinite().all()
    for shape in ((1, 3, least - 1, 300), (3, least, least), (1, 1, least, least)):
        with pytest.raises(ValueError, match=r"px a side|\[B, C, H, W\]|RGB"):
            metric(torch.rand(shape))
