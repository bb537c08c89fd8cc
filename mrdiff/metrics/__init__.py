"""Image quality under named protocols: of pairs, of single images and of sets of images."""

from mrdiff.metrics.backbones import WeightsError
from mrdiff.metrics.blocks import piqe
from mrdiff.metrics.dists import DISTS
from mrdiff.metrics.lpips import LPIPS
from mrdiff.metrics.meter import Meter
from mrdiff.metrics.naturalness import niqe
from mrdiff.metrics.protocol import IR_SDE, IR_SDE_Y, PROTOCOLS, RGB, Protocol, Y, luma
from mrdiff.metrics.quality import psnr, ssim
from mrdiff.metrics.sets import Features, frechet_distance, kernel_distance
from mrdiff.metrics.sliced import sliced_wasserstein

__all__ = ["DISTS", "IR_SDE", "IR_SDE_Y", "LPIPS", "PROTOCOLS", "RGB", "Features", "Meter"]
__all__ += ["Protocol", "WeightsError", "Y", "frechet_distance", "kernel_distance", "luma"]
__all__ += ["niqe", "piqe", "psnr", "sliced_wasserstein", "ssim"]
