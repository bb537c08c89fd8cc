"""Photos in and out: any file becomes float channels in [0, 1] with its metadata, and back."""

from mrdiff.photo.channels import (
    GREY_MODES,
    centre_crop,
    composite,
    from_pil,
    like_original,
    to_pil,
    to_rgb,
    to_uint8,
)
from mrdiff.photo.files import FORMATS, IMAGE_SUFFIXES, PhotoError, list_images
from mrdiff.photo.metadata import Metadata
from mrdiff.photo.reading import (
    PhotoFile,
    read_image,
    read_mask,
    read_photo,
    read_rgb,
    upright_size,
)
from mrdiff.photo.writing import encode_photo, write_image, write_photo

__all__ = [
    "FORMATS",
    "GREY_MODES",
    "IMAGE_SUFFIXES",
    "Metadata",
    "PhotoError",
    "PhotoFile",
    "centre_crop",
    "composite",
    "encode_photo",
    "from_pil",
    "like_original",
    "list_images",
    "read_image",
    "read_mask",
    "read_photo",
    "read_rgb",
    "to_pil",
    "to_rgb",
    "to_uint8",
    "upright_size",
    "write_image",
    "write_photo",
]
