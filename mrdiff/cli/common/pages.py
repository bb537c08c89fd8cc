"""Self-contained pages: templates that share a layout, and pictures within the page."""

from __future__ import annotations

import base64
import io

import jinja2
from PIL import Image
from torch import Tensor

from mrdiff.photo import to_pil

__all__ = ["SIDE", "embedded", "template", "thumbnail"]

SIDE = 768  # pixels that a picture of a page is wide or high at most


def template(package: str, name: str) -> jinja2.Template:
    """A template of a package, which may extend those of this one."""
    packages = ("mrdiff.cli.common", package)
    loader = jinja2.ChoiceLoader([jinja2.PackageLoader(each) for each in packages])
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template(name)


def thumbnail(image: Tensor) -> bytes:
    """A JPEG, shrunk if need be, of ``[C, H, W]`` in [0, 1], C in 1 or 3."""
    picture = to_pil(image)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=90, subsampling=0)
    return buffer.getvalue()


def embedded(content: bytes, kind: str = "jpeg") -> str:
    """The address of a picture that lies in the page itself."""
    return f"data:image/{kind};base64," + base64.b64encode(content).decode()
