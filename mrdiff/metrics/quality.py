"""PSNR and SSIM of each image of a batch, under a named protocol."""

from typing import cast

from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from mrdiff.metrics.protocol import RGB, Protocol

SSIM_SIGMA = 1.5
SSIM_WINDOW = 11


def _prepare_pair(restored: Tensor, target: Tensor, protocol: Protocol) -> tuple[Tensor, Tensor]:
    if restored.shape != target.shape:
        raise ValueError(
            f"images to compare differ in shape: {tuple(restored.shape)} and {tuple(target.shape)}"
        )
    return protocol.prepare(restored), protocol.prepare(target)


def psnr(restored: Tensor, target: Tensor, *, protocol: Protocol = RGB) -> Tensor:
    """Peak signal-to-noise ratio in dB, peak 1.

    Args:
        restored: [B, C, H, W] in [0, 1]; values outside are clamped.
        target: the ground truth, same shape.
        protocol: what is measured, `RGB` or `Y` for the usual tables.

    Returns:
        [B], in dB; `inf` where the two images are identical.

    Raises:
        ValueError: if the shapes differ or do not suit the protocol.
    """
    a, b = _prepare_pair(restored, target, protocol)
    return peak_signal_noise_ratio(a, b, data_range=1.0, reduction="none", dim=(1, 2, 3))


def ssim(restored: Tensor, target: Tensor, *, protocol: Protocol = RGB) -> Tensor:
    """Structural similarity (Wang et al., 2004): Gaussian window of 11 px, sigma 1.5, range 1.

    The mean runs over positions where the whole window lies inside the image, as in the authors'
    MATLAB code, scikit-image and IR-SDE's scripts, and over channels. torchmetrics alone averages
    over a reflected border too, which moves the value by up to 0.010 on rainy photos of
    480 x 320 px (measured), hence the cut border here. It agrees with scikit-image's
    `structural_similarity(gaussian_weights=True, use_sample_covariance=False)` to 1e-5.

    Args:
        restored: [B, C, H, W] in [0, 1]; values outside are clamped.
        target: the ground truth, same shape.
        protocol: what is measured, `RGB` or `Y` for the usual tables.

    Returns:
        [B], in [-1, 1].

    Raises:
        ValueError: if the shapes differ, or a side is shorter than the window.
    """
    a, b = _prepare_pair(restored, target, protocol)
    if min(a.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(
            f"SSIM needs at least {SSIM_WINDOW} px a side, got {a.shape[-2]} x {a.shape[-1]}"
        )
    result = structural_similarity_index_measure(
        a,
        b,
        sigma=SSIM_SIGMA,
        kernel_size=SSIM_WINDOW,
        data_range=1.0,
        reduction="none",
        return_full_image=True,
    )
    _, full = cast(tuple[Tensor, Tensor], result)
    border = SSIM_WINDOW // 2
    return full[..., border:-border, border:-border].mean(dim=(1, 2, 3))
