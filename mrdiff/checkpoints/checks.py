"""What a run asks of a checkpoint before it takes its weights: same meaning, same shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mrdiff.checkpoints.description import CheckpointError, build_process
from mrdiff.diffusion.denoiser import Denoiser


def check_meaning(
    config: Mapping[str, Any], denoiser: Denoiser, where: str, *, cure: str = "set the same"
) -> None:
    """Refuse weights for ``denoiser`` that were trained to mean something else.

    Raises:
        CheckpointError: the process, the parameterization or ``data_std`` differ from those in the
            description ``config``; names the checkpoint ``where`` and the ``cure``.
    """
    model = config["model"]
    # Whose schedule the run already uses is trusted in the checkpoint too.
    home = type(denoiser.process.schedule).__module__.partition(".")[0]
    same = {
        "process": build_process(model["process"], allow=[home]) == denoiser.process,
        "parameterization": model["parameterization"] == denoiser.parameterization.name,
        "data_std": model["data_std"] == denoiser.data_std,
    }
    for key, equal in same.items():
        if not equal:
            raise CheckpointError(
                f"model.{key} of this run differs from {where}, which has {model[key]}: "
                f"its weights would mean something else; {cure}"
            )


def check_tuning(config: Mapping[str, Any], tuning: Mapping[str, Any], where: str) -> None:
    """Raise CheckpointError unless it was trained with the same ``freeze`` and ``lora``."""
    for key, ours in tuning.items():
        theirs = config["model"].get(key)
        if (theirs or None) != (ours or None):
            raise CheckpointError(
                f"model.{key} of this run is {ours}, but {where} has {theirs}: set the same"
            )


def check_optimizer(config: Mapping[str, Any], ours: Any, where: str) -> None:
    """Raise CheckpointError if it was trained by an optimizer of another class than ``ours``.

    Both are ``model.optimizer`` as configurations have it.
    """
    theirs = config["model"].get("optimizer")
    kinds = [
        spec.get("class_path") if isinstance(spec, Mapping) else spec for spec in (theirs, ours)
    ]
    if None not in kinds and kinds[0] != kinds[1]:
        raise CheckpointError(
            f"model.optimizer of this run is {kinds[1]}, but {where} has the state of {kinds[0]}: "
            "set the same, or begin a new run with --init_from"
        )


def check_fit(weights: Mapping[str, Tensor], network: nn.Module, where: str) -> None:
    """Raise CheckpointError unless names and shapes of the weights are the network's."""
    theirs = {name: tuple(value.shape) for name, value in weights.items()}
    ours = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    wrong = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    if wrong:
        raise CheckpointError(
            f"the weights in {where} do not fit model.network of this run: {len(wrong)} differ, "
            f"first {wrong[0]} ({theirs.get(wrong[0])} there, {ours.get(wrong[0])} here)"
        )
