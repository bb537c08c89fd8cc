"""PSNR and SSIM of each image of a batch under a named protocol."""

from kornia.metrics import ssim as similarity
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from mrdiff.metrics.protocol import RGB, Protocol

SSIM_SIGMA = 1.5  # kornia's
SSIM_WINDOW = 11


def _prepare_pair(restored: Tensor, target: Tensor, protocol: Protocol) -> tuple[Tensor, Tensor]:
    if restored.shape != target.shape:
        raise ValueError(
            f"images to compare differ in shape: {tuple(restored.shape)} and {tuple(target.shape)}"
        )
    return protocol.prepare(restored), protocol.prepare(target)


def psnr(restored: Tensor, target: Tensor, *, protocol: Protocol = RGB) -> Tensor:
    """Peak signal-to-noise ratio ``[B]`` in dB of ``[B, C, H, W]`` in [0, 1], peak 1.

    ``inf`` where the two images are identical.

    Raises:
        ValueError: the shapes differ or do not suit the protocol.
    """
    a, b = _prepare_pair(restored, target, protocol)
    return peak_signal_noise_ratio(a, b, data_range=1.0, reduction="none", dim=(1, 2, 3))


def ssim(restored: Tensor, target: Tensor, *, protocol: Protocol = RGB) -> Tensor:
    """Structural similarity ``[B]`` in [-1, 1] of ``[B, C, H, W]`` in [0, 1] (Wang et al., 2004).

    Gaussian window of 11 px, sigma 1.5, range 1. The mean runs over positions where the whole
    window lies inside the image, as in the authors' MATLAB code and IR-SDE's scripts, and over
    channels. Scikit-image's ``structural_similarity(gaussian_weights=True,
    use_sample_covariance=False)`` agrees to 1e-5.

    Raises:
        ValueError: the shapes differ, or a side is shorter than the window.
    """
    a, b = _prepare_pair(restored, target, protocol)
    if min(a.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(
            f"SSIM needs at least {SSIM_WINDOW} px a side, got {a.shape[-2]} x {a.shape[-1]}"
        )
    by_pixel: Tensor = similarity(a, b, SSIM_WINDOW, eps=0.0, padding="valid")
    return by_pixel.mean(dim=(1, 2, 3))
