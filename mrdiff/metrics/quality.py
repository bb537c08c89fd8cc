"""PSNR and SSIM of each image of a batch under a named protocol, and all metrics by name."""

from collections.abc import Sequence

from kornia.metrics import ssim as similarity
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from mrdiff.metrics.lpips import LPIPS, MIN_SIZE
from mrdiff.metrics.protocol import PROTOCOLS, RGB, Protocol
from mrdiff.metrics.sliced import PATCH, sliced_wasserstein
from mrdiff.system.names import METRICS, VALIDATION_METRICS

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


def measurable(names: Sequence[str], height: int, width: int) -> list[str]:
    """Those of ``names`` whose windows fit into images of this size in px."""
    least = {"ssim": SSIM_WINDOW, "ssim_y": SSIM_WINDOW, "lpips": MIN_SIZE, "sw": PATCH}
    return [name for name in names if min(height, width) >= least.get(name, 1)]


def measure(
    restored: Tensor,
    target: Tensor,
    *,
    names: Sequence[str] = METRICS,
    lpips: LPIPS | None = None,
    protocol: str = "standard",
) -> dict[str, Tensor]:
    """Measure each image of a batch: one tensor ``[B]`` a metric, in the order of ``names``.

    Args:
        restored: RGB in [0, 1], ``[B, 3, H, W]``; clamped and rounded to 8 bit first.
        target: the ground truth, same shape.
        names: of ``VALIDATION_METRICS``; "psnr" and "ssim" are on RGB, those with "_y" on luma;
            "sw" is :func:`.sliced_wasserstein`, which takes 70 times an image's memory.
        lpips: the network, of whole images in all protocols; without it "lpips" is left out.
        protocol: one of ``PROTOCOLS``.

    Raises:
        ValueError: for an unknown name, or images that a metric cannot take.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}; known: {', '.join(PROTOCOLS)}")
    rgb, y = PROTOCOLS[protocol]
    results: dict[str, Tensor] = {}
    for name in names:
        if name not in VALIDATION_METRICS:
            raise ValueError(f"unknown metric {name!r}; known: {', '.join(VALIDATION_METRICS)}")
        if name == "lpips":
            if lpips is not None:
                results[name] = lpips(RGB.prepare(restored), RGB.prepare(target))
        elif name == "sw":
            pairs = zip(RGB.prepare(restored), RGB.prepare(target), strict=True)
            each = [sliced_wasserstein(image[None], truth[None]) for image, truth in pairs]
            results[name] = target.new_tensor(each)
        else:
            metric = psnr if name.startswith("psnr") else ssim
            chosen = y if name.endswith("_y") else rgb
            results[name] = metric(restored, target, protocol=chosen)
    return results
