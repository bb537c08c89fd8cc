"""An official file as a checkpoint of ours."""

from __future__ import annotations

import hashlib
from pathlib import Path

from torch import nn

from mrdiff.checkpoints.description import CheckpointError
from mrdiff.checkpoints.export import write_model
from mrdiff.checkpoints.reading import FORMAT, describe_denoiser
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.parameterization import NOISE
from mrdiff.diffusion.process import MRProcess
from mrdiff.official.architecture import Architecture, check_weights
from mrdiff.official.weights import OfficialFile

ORIGIN_KEY = "origin"


def convert(
    file: OfficialFile, architecture: Architecture, process: MRProcess, folder: Path, *, steps: int
) -> nn.Module:
    """Write a file's weights and what they mean as a folder that ``load_model`` reads.

    Args:
        file: the official weights.
        architecture: the network that they belong to.
        process: what they were trained with.
        folder: to be made; missing or empty.
        steps: the official T.

    Returns:
        The network, without its weights.

    Raises:
        CheckpointError: the weights do not fit, or ``folder`` is taken.
    """
    try:
        network = architecture.build(steps=steps)
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(f"{file.path}: there is no {architecture}: {error}") from error
    check_weights(file, network)
    config = {
        "format": FORMAT,
        "model": describe_denoiser(Denoiser(network, process, NOISE)),
        "data": None,
        ORIGIN_KEY: {
            "file": file.path.name,
            "as": architecture.kind,
            "sha256": _sha256(file.path),
        },
    }
    write_model(folder, {name: value.float() for name, value in file.weights.items()}, config)
    return network


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
