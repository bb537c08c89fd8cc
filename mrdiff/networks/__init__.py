"""Networks: ``forward(x, mu, t, context=None)``, images ``[B, C, H, W]``, times ``[B]``."""

from mrdiff.networks.conditional_unet import IRSDEUNet
from mrdiff.networks.daclip import DACLIPUNet
from mrdiff.networks.nafnet import RefusionNAFNet
from mrdiff.networks.unet import UNet

__all__ = ["DACLIPUNet", "IRSDEUNet", "RefusionNAFNet", "UNet"]
