"""The names of degradations as CLIP's text tower reads them.

The words are cut into tokens by open_clip (``pip install 'mrdiff[clip]'``); the tower is our own.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from mrdiff.official.daclip.weights import DACLIPError, fill, read_daclip, text_tower

__all__ = ["encode_texts", "tokenise"]

_MISSING = (
    "features of tasks need open_clip's tokenizer: pip install 'mrdiff[clip]' "
    "(those of photos do not)"
)


def _tokenizer() -> ModuleType:
    """open_clip's module ``tokenizer`` alone: the package needs a torchvision that fits torch."""
    package = importlib.util.find_spec("open_clip")  # finds it, imports nothing
    if package is None or not package.submodule_search_locations:
        raise DACLIPError(_MISSING)
    file = Path(package.submodule_search_locations[0]) / "tokenizer.py"
    spec = importlib.util.spec_from_file_location("mrdiff_open_clip_tokenizer", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (ImportError, OSError) as error:  # ftfy or regex is missing, or the file
        raise DACLIPError(f"{_MISSING}: {error}") from error
    return module


def tokenise(texts: Sequence[str], length: int = 77) -> Tensor:
    """Int64 tokens ``[B, length]`` of texts; DACLIPError without open_clip."""
    tokens: Tensor = _tokenizer().tokenize(list(texts), length)
    return tokens


@torch.no_grad()
def encode_texts(path: Path | str, texts: Sequence[str]) -> Tensor:
    """The features ``[B, D]``, not normalised, of texts by the text tower in a DA-CLIP checkpoint.

    Raises:
        DACLIPError: open_clip is not installed, or the file is not usable.
    """
    weights, where = read_daclip(path), str(path)
    tower = fill(text_tower(weights, "clip.", where), weights, lambda name: f"clip.{name}", where)
    # Each by itself, so that its last bits do not depend on the others.
    tokens = tokenise(texts, len(tower.positional_embedding))
    return torch.cat([tower(one[None]) for one in tokens])
