"""Image quality under named protocols: PSNR and SSIM on RGB or luma, and LPIPS."""

from mrdiff.metrics.lpips import LPIPS, LPIPSWeightsError, find_lpips_weights
from mrdiff.metrics.protocol import IR_SDE, IR_SDE_Y, PROTOCOLS, RGB, Protocol, Y, luma
from mrdiff.metrics.quality import measurable, measure, psnr, ssim
from mrdiff.metrics.sliced import sliced_wasserstein

__all__ = ["IR_SDE", "IR_SDE_Y", "LPIPS", "PROTOCOLS", "RGB", "LPIPSWeightsError", "Protocol", "Y"]
__all__ += ["find_lpips_weights", "luma", "measurable", "measure", "psnr"]
__all__ += ["sliced_wasserstein", "ssim"]
