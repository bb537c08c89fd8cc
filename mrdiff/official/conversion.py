"""An official file as a checkpoint of ours."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mrdiff.checkpoints.description import FORMAT, CheckpointError, describe_denoiser
from mrdiff.checkpoints.export import write_model
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.parameterization import NOISE
from mrdiff.diffusion.path import GaussianPath
from mrdiff.official.architecture import Architecture, check_weights
from mrdiff.official.weights import OfficialFile


def convert(
    file: OfficialFile,
    architecture: Architecture,
    process: GaussianPath,
    folder: Path,
    *,
    steps: int,
) -> None:
    """Write weights and what they mean as a folder that ``load_model`` reads.

    Args:
        file: the official weights.
        architecture: the network that they belong to.
        process: what they were trained with.
        folder: to be made; missing or empty.
        steps: the official T.

    Raises:
        CheckpointError: the weights do not fit, or ``folder`` is taken.
    """
    try:
        network = architecture.build(steps=steps)
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(f"{file.path}: there is no {architecture}: {error}") from error
    check_weights(file, network)
    with file.path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    config = {
        "format": FORMAT,
        "model": describe_denoiser(Denoiser(network, process, NOISE)),
        "data": None,
        "origin": {"file": file.path.name, "as": architecture.kind, "sha256": digest},
    }
    write_model(folder, {name: value.float() for name, value in file.weights.items()}, config)
