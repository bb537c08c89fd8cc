"""Where a model is: a path, the name of one in the package, or one on the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mrdiff.checkpoints.hub import HUB, PlaceError, download

__all__ = ["BUNDLED", "HUB", "PlaceError", "find_model", "find_pretrained"]
__all__ += ["name_of_model", "why_fixed"]

_MODELS = Path(__file__).parents[1] / "models"
BUNDLED = _MODELS / "universal"  # ten tasks in one network
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_CACHED = "models--"  # of the Hub's cache: models--ORG--NAME


def find_model(source: str | os.PathLike[str]) -> Path:
    """The ``.ckpt`` file or folder that a name means; a path is what it is.

    ``hf://ORG/NAME`` or ``hf://ORG/NAME@REVISION`` is fetched, or taken from the cache of the Hub.

    Raises:
        PlaceError: a model of the Hub that cannot be had.
    """
    name = os.fspath(source)
    if name == BUNDLED.name and not os.path.exists(name):
        return BUNDLED
    if not name.startswith(HUB):
        return Path(name)
    repo, _, revision = name.removeprefix(HUB).partition("@")
    if not _HUB_NAME.fullmatch(repo):
        raise PlaceError(f"{name}: a model of the Hub is hf://ORG/NAME or hf://ORG/NAME@REVISION")
    return download(repo, revision or None)


def name_of_model(place: Path) -> str:
    """What :func:`find_model` found it by, but for the revision."""
    if place == BUNDLED:
        return place.name
    cached = _in_cache(place)
    return str(place) if cached is None else HUB + cached.replace("--", "/", 1)


def _in_cache(file: Path) -> str | None:
    """``ORG--NAME`` of the model of the Hub's cache that a file, or a folder, is of."""
    ways = (way for way in file.absolute().parents if way.name.startswith(_CACHED))
    found = next((way.name for way in ways if (way / "blobs").is_dir()), None)
    return None if found is None else found.removeprefix(_CACHED)


def find_pretrained(source: str | os.PathLike[str], revision: str | None = None) -> Path:
    """As :func:`find_model`, but ``ORG/NAME`` that is no path here is a model of the Hub.

    Raises:
        PlaceError: a model that cannot be had, or a ``revision`` of what is not on the Hub.
    """
    name = os.fspath(source)
    if _HUB_NAME.fullmatch(name) and not (os.path.exists(name) or name.endswith(".ckpt")):
        name = HUB + name
    if revision is None:
        return find_model(name)
    if not name.startswith(HUB):
        raise PlaceError(f"{name} is on this machine: only a model of the Hub has revisions")
    return find_model(f"{name}@{revision}")


def why_fixed(file: Path) -> str | None:
    """Why the file of a model, or its description, is not to be changed; None if it may be.

    Models of the package and of the Hub's cache stay what they are for everybody who names them.
    """
    if _MODELS in file.resolve().parents or _in_cache(file) is not None:
        return "it is of the package or of the Hub's cache: copy it first, with mrdiff export"
    for path in (file.resolve(), file.resolve().parent):
        if not os.access(path, os.W_OK):
            return f"{path} is read-only"
    return None
