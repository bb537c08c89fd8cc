"""DA-CLIP (Luo et al., ICLR 2024): what a photo shows and what degraded it, as features.

In plain torch: neither open_clip nor torchvision is needed, but for the tokens of texts.
"""

from mrdiff.official.daclip.controller import ImageController
from mrdiff.official.daclip.text import encode_texts
from mrdiff.official.daclip.weights import DACLIPError

__all__ = ["DACLIPError", "ImageController", "encode_texts"]
