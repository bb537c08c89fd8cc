"""Networks: ``forward(x, mu, t, context=None)``, images ``[B, C, H, W]``, times ``[B]``."""

from mrdiff.networks.unet import UNet

__all__ = ["UNet"]
