"""What the rest of mrdiff asks of a network: ``forward``; everything else is optional."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any, Protocol

import torch
from torch import Tensor, nn

__all__ = ["Context", "Network", "Prepared", "check_sizes", "classifier_parameters"]
__all__ += [
    "image_channels",
    "is_plain",
    "known_features",
    "known_tasks",
    "prepare_network",
    "size_multiple",
    "takes_mask",
    "time_type",
]

Context = dict[str, Tensor]
Prepared = Callable[[Tensor, Tensor, int], Tensor]  # (x, mu, index of the time) -> prediction


class Network(Protocol):
    """A module that predicts from a state of any height and width.

    Only ``forward`` is needed. A missing other member has the value given here, by the functions
    below, which alone look them up.
    """

    channels: int = 3
    """Image channels C."""

    size_multiple: int = 1
    """Height and width are padded to a multiple of it, within ``forward``."""

    tasks: Sequence[str] = ()
    """Names of the degradations that it distinguishes; ``context["task"]`` ``[B, K]`` has their
    probabilities. With tasks ``classify`` is needed."""

    classifier: nn.Module | None = None
    """Holds the weights behind ``classify``, which data without named tasks does not train."""

    mask: bool = False
    """Whether ``context["mask"]`` ``[B, 1, H, W]``, 1 where pixels are known, is used."""

    features: Mapping[str, int] = {}
    """Features of the photo, vectors ``context[name]`` ``[B, D]``, by name with their widths D."""

    def forward(self, x: Tensor, mu: Tensor, t: Tensor, context: Context | None = None) -> Tensor:
        """The prediction ``[B, C, H, W]``, of unit size: the framework scales the target.

        Args:
            x: state ``[B, C, H, W]``.
            mu: degraded image ``[B, C, H, W]`` in [0, 1].
            t: ``[B]`` in [0, 1].
            context: what the network takes besides, by the names above.
        """

    def classify(self, mu: Tensor) -> Tensor:
        """Logits ``[B, K]`` of the K tasks for degraded images ``[B, C, H, W]`` in [0, 1]."""

    def prepare(
        self, mu: Tensor | None, times: Tensor, context: Context | None = None
    ) -> Prepared | None:
        """The network for one sampling run without gradients: equal numbers, sooner.

        Args:
            mu: degraded images ``[B, C, H, W]``; None if they are cut in tiles, and differ.
            times: ``[N]`` in [0, 1].
            context: as in ``forward``.

        Returns:
            ``(x, mu, i) -> prediction`` at ``times[i]``; None if ``forward`` is to be called.
        """
        return None


def check_sizes(least: int, **sizes: int | Sequence[int]) -> None:
    """Refuse sizes of a network that nothing could be built of, before they are multiplied.

    Raises:
        ValueError: one is no whole number from ``least`` to 65,536, or has more than 16 of them.
    """
    for name, given in sizes.items():
        values: Any = list(given) if isinstance(given, Sequence) else [given]
        whole = all(isinstance(v, Integral) and not isinstance(v, bool) for v in values)
        if not whole or len(values) > 16 or not all(least <= v <= 65_536 for v in values):
            rule = f"whole, from {least} to 65536, and 16 at most"
            raise ValueError(f"{name} must be {rule}, got {given!s:.80}")


def image_channels(network: nn.Module) -> int:
    return int(getattr(network, "channels", Network.channels))


def size_multiple(network: nn.Module) -> int:
    return int(getattr(network, "size_multiple", Network.size_multiple))


def known_tasks(network: nn.Module) -> tuple[str, ...]:
    return tuple(getattr(network, "tasks", Network.tasks))


def classifier_parameters(network: nn.Module) -> Iterator[nn.Parameter]:
    classifier = getattr(network, "classifier", Network.classifier)
    if isinstance(classifier, nn.Module):
        yield from classifier.parameters()


def takes_mask(network: nn.Module) -> bool:
    return getattr(network, "mask", Network.mask) is True


def known_features(network: nn.Module) -> dict[str, int]:
    features = getattr(network, "features", Network.features)
    # Other networks may well have layers of that name.
    return dict(features) if isinstance(features, Mapping) else {}


def time_type(weights: torch.dtype) -> torch.dtype:
    """In which times are kept, and sines of them computed: float32 if the weights are narrower."""
    return torch.promote_types(weights, torch.float32)


def is_plain(network: nn.Module) -> bool:
    """Whether all parts compute what their classes do, from their weights alone.

    Adapters, parametrizations, hooks and compiled modules do more.
    """
    for module in network.modules():
        changed = module._forward_hooks or module._forward_pre_hooks
        own = type(module).__module__.startswith(("torch.nn.modules.", "mrdiff.networks."))
        if changed or not own or module._compiled_call_impl is not None:
            return False
    return True


def prepare_network(
    network: nn.Module, mu: Tensor | None, times: Tensor, context: Context | None
) -> Prepared | None:
    """What :meth:`Network.prepare` returns; None too for gradients, exports, hooks and the like."""
    make = getattr(network, "prepare", None)
    wanted = not (torch.is_grad_enabled() or torch.compiler.is_exporting())
    if make is None or not wanted or not is_plain(network):
        return None
    weight = next(network.parameters())
    times = times.to(weight.device, time_type(weight.dtype))
    ready: Prepared | None = make(mu, times, context)
    return ready
