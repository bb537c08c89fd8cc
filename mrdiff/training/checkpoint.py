"""What a checkpoint says of the module that was trained, and whether a module is that one."""

from __future__ import annotations

from typing import Any

from mrdiff.checkpoints.checks import check_fit, check_meaning, check_tuning
from mrdiff.checkpoints.description import (
    CONFIG_KEY,
    FORMAT,
    CheckpointError,
    describe,
    describe_denoiser,
    describe_start,
)
from mrdiff.checkpoints.reading import network_weights
from mrdiff.checkpoints.schema import check_description
from mrdiff.metrics import RGB, Y
from mrdiff.tuning.checkpoint_sampler import SAMPLER_KEY

# A ``module`` here is a :class:`.module.MRDiffusion`, which is built upon this.


def settings(module: Any) -> dict[str, Any]:
    """The description that makes a checkpoint complete without its config file.

    Raises:
        TypeError: something in it cannot be written.
    """
    if module.config is None:
        model = describe_denoiser(module.denoiser)
    else:  # the live process: a configuration may name a function that makes the schedule
        model = {**module.config, "process": module.process}
        model["parameterization"] = module.parameterization.name  # which the objective may change
        model["start"] = describe_start(module.denoiser)  # of which the configuration has the file
    said = {
        "format": FORMAT,
        "model": {**model, **module.tuning},
        "data": module.data_config,
        "metrics": [protocol.describe() for protocol in (RGB, Y)],
    }
    if module._trainer is not None:
        said["precision"] = str(module.trainer.precision)
    if module.sampler_options is not None:
        said[SAMPLER_KEY] = module.sampler_options
    described: dict[str, Any] = describe(said)
    return described


def check_loaded(module: Any, checkpoint: dict[str, Any]) -> None:
    """Raise CheckpointError for weights of another meaning, or of another network or loss."""
    config: Any = checkpoint.get(CONFIG_KEY)
    where = "the checkpoint"
    check_description(config)
    check_meaning(config, module.denoiser, where)
    check_tuning(config, module.tuning, where)
    if config["model"].get("start") != describe_start(module.denoiser):
        raise CheckpointError(f"model.start of this run is no model as in {where}: set the same")
    check_fit(network_weights(checkpoint), module.network, where)
    loss = {k[5:]: v for k, v in checkpoint["state_dict"].items() if k.startswith("loss.")}
    check_fit(loss, module.loss, where, key="model.loss")
