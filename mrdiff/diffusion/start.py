"""What comes before a path: a trained model whose estimate takes the degraded image's place.

PMRF (Ohayon et al. 2025) begins a flow so, with a network that was trained by regression.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mrdiff.networks.protocol import Context, image_channels, known_features, takes_mask

Stage = tuple[Any, Context | None]  # a denoiser, and the context that it is to be given


def first_stage(denoiser: object, mu: Tensor, context: Context | None = None) -> Stage | None:
    """What runs before ``denoiser``, if anything does: see :meth:`.Denoiser.first_stage`."""
    find = getattr(denoiser, "first_stage", None)
    found: Stage | None = None if find is None else find(mu, context)
    return found


def check_start(start: nn.Module, network: nn.Module) -> None:
    """Raise ValueError if a path's network cannot follow the network ``start``."""
    ours, theirs = image_channels(network), image_channels(start)
    if theirs != ours:
        raise ValueError(f"model.start has {theirs} image channels, model.network has {ours}")
    if known_features(start):
        raise ValueError("model.start takes features of each photo: give one that does without")
    if takes_mask(start) and not takes_mask(network):
        raise ValueError("model.start takes masks: set mask of model.network, too")
