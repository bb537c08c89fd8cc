"""Metrics of single images by their names, those that can be measured on this machine."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from mrdiff.metrics.blocks import BLOCK, piqe
from mrdiff.metrics.dists import DISTS
from mrdiff.metrics.lpips import LPIPS
from mrdiff.metrics.naturalness import MIN_SIZE, niqe
from mrdiff.metrics.protocol import PROTOCOLS, RGB
from mrdiff.metrics.quality import SSIM_WINDOW, psnr, ssim
from mrdiff.metrics.sliced import PATCH, sliced_wasserstein
from mrdiff.system.names import IMAGE_METRICS, METRICS

_LEAST = {  # px a side
    "ssim": SSIM_WINDOW,
    "ssim_y": SSIM_WINDOW,
    "lpips": LPIPS.min_size,
    "sw": PATCH,
    "niqe": MIN_SIZE,
    "piqe": BLOCK,
}


class Meter(nn.Module):
    """Measures each image of a batch by several metrics.

    ``psnr`` and ``ssim`` are of RGB, those with ``_y`` of luma, as the protocol has them. The
    others are of whole RGB images of 8 bit in any protocol: ``lpips`` (:class:`LPIPS`), ``dists``
    (:class:`DISTS`) and ``sw`` (:func:`sliced_wasserstein`, which takes 70 times an image's memory)
    compare with the truth, ``niqe`` (:func:`niqe`) and ``piqe`` (:func:`piqe`) do not look at it.

    Args:
        names: of :data:`mrdiff.system.names.IMAGE_METRICS`.
        protocol: one of :data:`PROTOCOLS`.
        lpips_weights: file with AlexNet's features for ``lpips``; None looks for it.
        vgg_weights: file with VGG16's features for ``dists``; None looks for it.

    Attributes:
        names: what is measured here, in order.
        missing: what is not, and why.

    Raises:
        ValueError: an unknown metric or protocol.
        WeightsError: a file that was named is missing or not usable.
    """

    def __init__(
        self,
        names: Sequence[str] = METRICS,
        protocol: str = "standard",
        lpips_weights: str | Path | None = None,
        vgg_weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        if protocol not in PROTOCOLS:
            raise ValueError(f"unknown protocol {protocol!r}; known: {', '.join(PROTOCOLS)}")
        for name in names:
            if name not in IMAGE_METRICS:
                raise ValueError(f"unknown metric {name!r}; known: {', '.join(IMAGE_METRICS)}")
        rgb, luma = PROTOCOLS[protocol]
        self._protocols = {"psnr": rgb, "ssim": rgb, "psnr_y": luma, "ssim_y": luma}
        self._networks, self.missing = nn.ModuleDict(), dict[str, str]()
        for name, kind, file in (("lpips", LPIPS, lpips_weights), ("dists", DISTS, vgg_weights)):
            if name not in names:
                continue
            if (network := kind.find(file)) is None:
                self.missing[name] = kind.weights.absent
            else:
                self._networks[name] = network
        self.names = tuple(name for name in dict.fromkeys(names) if name not in self.missing)

    def fitting(self, height: int, width: int) -> list[str]:
        """Those of :attr:`names` whose windows fit into images of this size in px."""
        return [name for name in self.names if min(height, width) >= self._least(name)]

    def _least(self, name: str) -> int:
        protocol = self._protocols.get(name)
        return _LEAST.get(name, 1) + (2 * protocol.crop_border if protocol else 0)

    def forward(self, restored: Tensor, target: Tensor) -> dict[str, Tensor]:
        """One tensor ``[B]`` a metric, in the order of :attr:`names`, of those that fit.

        Args:
            restored: RGB in [0, 1], ``[B, 3, H, W]``; clamped and rounded to 8 bit first.
            target: the ground truth, same shape.

        Raises:
            ValueError: the shapes differ or are not of RGB images.
        """
        if restored.shape != target.shape or restored.ndim != 4 or restored.shape[1] != 3:
            shapes = f"{tuple(restored.shape)} and {tuple(target.shape)}"
            raise ValueError(f"two batches [B, 3, H, W] are needed, of one shape; got {shapes}")
        names = self.fitting(*target.shape[-2:])
        return {name: self._measured(name, restored, target) for name in names}

    def _measured(self, name: str, restored: Tensor, target: Tensor) -> Tensor:
        if name in self._protocols:
            similarity = psnr if name.startswith("psnr") else ssim
            return similarity(restored, target, protocol=self._protocols[name])
        if name in ("niqe", "piqe"):
            return niqe(restored) if name == "niqe" else piqe(restored)
        restored, target = RGB.prepare(restored), RGB.prepare(target)
        if name == "sw":
            pairs = zip(restored, target, strict=True)
            return target.new_tensor([sliced_wasserstein(a[None], b[None]) for a, b in pairs])
        distance: Tensor = self._networks[name](restored, target)
        return distance
