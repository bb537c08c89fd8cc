"""What is kept of each photo: all that was measured of it, in one small file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mrdiff.cli.common.jobs import Photo
from mrdiff.photo import PhotoError
from mrdiff.restoration.restorer import Judged
from mrdiff.system.files import replacing

__all__ = ["FOLDER", "INPUT", "TRUTH", "Part", "digest_of", "read_part", "write_part"]

FOLDER = "photos"  # of the output
INPUT, TRUTH = "input", "truth"  # beside the keys of runs
_KEY = "evaluation"


@dataclass
class Part:
    """Scores by the key of a run, or of the degraded input, then by metric; seconds by run.

    ``features`` are those behind FID and KID, ``[D]`` each; ``files`` is the digest of the files
    that all of it was made of, ``judged`` the task if the model knows several.
    """

    files: str
    judged: Judged | None = None
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    features: dict[str, Tensor] = field(default_factory=dict)


def digest_of(photo: Photo) -> str:
    """Of the contents of a photo, its reference and its mask.

    Raises:
        PhotoError: one cannot be read.
    """
    whole = hashlib.sha256()
    for path in photo.originals:
        try:
            whole.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError as error:
            raise PhotoError(f"{path}: {error.strerror or error}") from error
    return whole.hexdigest()


def read_part(path: Path) -> Part | None:
    """What is known; None if that is nothing, or the file is damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            told = json.loads(file.metadata()[_KEY])
            features = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        judged = told["judged"] and (str(told["judged"][0]), float(told["judged"][1]))
        return Part(told["files"], judged, told["scores"], told["seconds"], features)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None


def write_part(path: Path, part: Part) -> None:
    """Write the file, whole or not at all."""
    told = {key: value for key, value in vars(part).items() if key != "features"}
    with replacing(path) as temporary:
        temporary.write_bytes(save(part.features, {_KEY: json.dumps(told)}))
