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
from mrdiff.photo.files import (
    FORMATS,
    IMAGE_SUFFIXES,
    Found,
    PhotoError,
    find_images,
    list_images,
    name_of,
)
from mrdiff.photo.headers import open_image, upright_size
from mrdiff.photo.metadata import Metadata
from mrdiff.photo.reading import (
    PhotoFile,
    limit_megapixels,
    read_image,
    read_mask,
    read_photo,
    read_rgb,
)
from mrdiff.photo.writing import encode_photo, write_image, write_photo

__all__ = [
    "FORMATS",
    "GREY_MODES",
    "IMAGE_SUFFIXES",
    "Found",
    "Metadata",
    "PhotoError",
    "PhotoFile",
    "centre_crop",
    "composite",
    "encode_photo",
    "find_images",
    "from_pil",
    "like_original",
    "limit_megapixels",
    "list_images",
    "name_of",
    "open_image",
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
