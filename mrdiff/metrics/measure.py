"""The metrics under their log names, measured together."""

from collections.abc import Sequence

from torch import Tensor

from mrdiff.metrics.lpips import LPIPS
from mrdiff.metrics.protocol import PROTOCOLS, RGB
from mrdiff.metrics.quality import psnr, ssim
from mrdiff.names import METRICS


def measure(
    restored: Tensor,
    target: Tensor,
    *,
    names: Sequence[str] = METRICS,
    lpips: LPIPS | None = None,
    protocol: str = "standard",
) -> dict[str, Tensor]:
    """Measure each image of a batch.

    Args:
        restored: RGB in [0, 1], [B, 3, H, W]; clamped and rounded to 8 bit first.
        target: the ground truth, same shape.
        names: any of `METRICS`; "psnr" and "ssim" are on RGB, those with "_y" on luma.
        lpips: the network; without it "lpips" is left out.
        protocol: one of `PROTOCOLS`. LPIPS is on the whole image in all.

    Returns:
        One [B] tensor a metric, in the order of `names`.

    Raises:
        ValueError: for an unknown name, or images that a metric cannot take.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}; known: {', '.join(PROTOCOLS)}")
    rgb, y = PROTOCOLS[protocol]
    results: dict[str, Tensor] = {}
    for name in names:
        if name == "psnr":
            results[name] = psnr(restored, target, protocol=rgb)
        elif name == "ssim":
            results[name] = ssim(restored, target, protocol=rgb)
        elif name == "psnr_y":
            results[name] = psnr(restored, target, protocol=y)
        elif name == "ssim_y":
            results[name] = ssim(restored, target, protocol=y)
        elif name == "lpips":
            if lpips is not None:
                results[name] = lpips(RGB.prepare(restored), RGB.prepare(target))
        else:
            raise ValueError(f"unknown metric {name!r}; known: {', '.join(METRICS)}")
    return results
