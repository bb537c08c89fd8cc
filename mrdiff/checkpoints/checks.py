"""What a run asks of a checkpoint before it takes its weights: same meaning, same shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mrdiff.checkpoints.description import CheckpointError, build_process, describe
from mrdiff.diffusion.denoiser import Denoiser


def homes(denoiser: Denoiser) -> list[str]:
    """The packages whose network, path and schedule it has: trusted in its checkpoints, too."""
    parts = (denoiser.network, denoiser.process, getattr(denoiser.process, "schedule", None))
    return [type(part).__module__.partition(".")[0] for part in parts if part is not None]


def check_meaning(
    config: Mapping[str, Any],
    denoiser: Denoiser,
    where: str,
    *,
    cure: str = "set the same",
    nearly: bool = False,
) -> None:
    """Refuse weights for ``denoiser`` that were trained to mean something else, or not ``nearly``.

    Raises:
        CheckpointError: the process, the parameterization or ``data_std`` differ from those in the
            description ``config``; names the checkpoint ``where`` and the ``cure``.
    """
    model, ours = config["model"], describe(denoiser.process)
    target, theirs = denoiser.parameterization, model["parameterization"]
    same = {
        "process": describe(build_process(model["process"], allow=homes(denoiser))) == ours,
        "parameterization": target.takes(theirs) if nearly else target.name == theirs,
        "data_std": model["data_std"] == denoiser.data_std,
    }
    for key, equal in same.items():
        if not equal:
            raise CheckpointError(
                f"model.{key} of this run differs from {where}, which has {model[key]!s:.200}: "
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


def check_fit(
    weights: Mapping[str, Tensor], network: nn.Module, where: str, *, key: str = "model.network"
) -> None:
    """Raise CheckpointError unless names, shapes and kinds of the weights are the network's.

    Of which width a floating-point number is does not matter.
    """
    theirs, ours = (
        {name: (*value.shape, *_kind(value)) for name, value in state.items()}
        for state in (weights, network.state_dict())
    )
    wrong = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    if wrong:
        raise CheckpointError(
            f"the weights in {where} do not fit {key} of this run: {len(wrong)} differ, "
            f"first {wrong[0]} ({theirs.get(wrong[0])} there, {ours.get(wrong[0])} here)"
        )


def _kind(value: Tensor) -> tuple[str, ...]:
    """What is said of a tensor beside its shape: nothing for floats."""
    return () if value.is_floating_point() else (str(value.dtype).removeprefix("torch."),)
