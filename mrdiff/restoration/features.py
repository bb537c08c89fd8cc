"""Features of photos, for networks that are told by another network what they see.

Either something makes them of the photo, or they lie in a file that ``mrdiff features`` wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from mrdiff.networks.conditions import Context, FeatureError, known_features, pick_features
from mrdiff.system.files import replacing

__all__ = ["FeatureMaker", "Known", "StoredFeatures", "check_features", "gather_features"]

# Of an image [1, 3, H, W] in [0, 1] the features [1, D] by their names.
FeatureMaker = Callable[[Tensor], Mapping[str, Tensor]]
# Of each image the features [1, D] that are known beforehand, perhaps none.
Known = Sequence[Mapping[str, Tensor]]

_KINDS = ("text", "image")
_TASK = "task/"


def check_features(network: nn.Module, task: str, make: FeatureMaker | None) -> None:
    """Refuse features for a network that takes none, and a task's name for one that takes some.

    Raises:
        FeatureError: one line.
    """
    taken = known_features(network)
    if make is not None and not taken:
        raise FeatureError("this model takes no features: leave out --daclip and --context")
    if taken and task != "auto":
        cure = f"give --context FILE that holds task/{task}"
        raise FeatureError(f"task {task}: this model takes features instead: {cure}")


def gather_features(
    network: nn.Module,
    mu: Tensor,
    given: Known | None,
    make: FeatureMaker | None,
) -> Context:
    """The features ``[B, D]`` that a network takes, of each image by itself.

    Args:
        network: tells what it takes.
        mu: degraded images ``[B, 3, H, W]`` in [0, 1], on the network's device.
        given: what is known beforehand.
        make: is asked for what is not known.

    Raises:
        FeatureError: one is missing or has another width.
    """
    taken = known_features(network)
    if not taken:
        return {}
    whole: list[Context] = []
    for image, known in zip(mu[:, None], given or [{}] * len(mu), strict=True):
        made = make(image) if make is not None and {*taken} - {*known} else {}
        whole.append(pick_features(network, {**made, **known}))
    return {name: torch.cat([one[name].to(mu) for one in whole]) for name in taken}


class StoredFeatures:
    """A ``.safetensors`` file of features, each ``[D]`` or ``[1, D]``.

    ``NAME/text`` and ``NAME/image`` are those of the photo NAME, its path without the suffix;
    ``text`` and ``image`` serve all photos without their own; ``task/NAME`` is the text feature of
    a task.

    Args:
        path: of the file, for errors.
        tensors: by key.

    Raises:
        FeatureError: a key means nothing, or a tensor is no feature; one line with file and key.
    """

    def __init__(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        self.path = path
        self._tensors = {key: self._checked(key, value) for key, value in tensors.items()}

    @classmethod
    def read(cls, path: Path) -> StoredFeatures:
        """Read a file.

        Raises:
            FeatureError: as the class does, or it is no such file.
        """
        try:
            return cls(path, load_file(path))
        except FileNotFoundError:
            raise FeatureError(f"no file of features at {path}") from None
        except SafetensorError as error:
            raise FeatureError(f"{path} is not a readable .safetensors file: {error}") from error

    def write(self) -> None:
        """Write the file; it appears when it is whole.

        Raises:
            OSError: it cannot be written.
        """
        content = save({key: value[0].cpu().clone() for key, value in self._tensors.items()})
        with replacing(self.path) as temporary:
            temporary.write_bytes(content)

    def of(self, name: str, *, task: str | None = None) -> Context:
        """The features ``[1, D]`` that are stored for a photo, perhaps none.

        Args:
            name: the photo's relative path without its suffix, with ``/``.
            task: whose text feature is taken instead of the photo's.

        Raises:
            FeatureError: there is none of this task.
        """
        for_all = {kind: self._tensors[kind] for kind in _KINDS if kind in self._tensors}
        own = {kind: f"{name}/{kind}" for kind in _KINDS if f"{name}/{kind}" in self._tensors}
        found = for_all | {kind: self._tensors[key] for kind, key in own.items()}
        if task is not None:
            if _TASK + task not in self._tensors:
                known = [key.removeprefix(_TASK) for key in self._tensors if _of_task(key)]
                there = f"it has {', '.join(known)}" if known else "nor of any other task"
                raise FeatureError(f"{self.path} has no {_TASK}{task}: {there}")
            found["text"] = self._tensors[_TASK + task]
        return found

    def check(self, taken: Mapping[str, int]) -> None:
        """Refuse features of other widths than those that a network takes.

        Raises:
            FeatureError: one line with file and key.
        """
        for key, value in self._tensors.items():
            width = taken.get("text" if _of_task(key) else key.rpartition("/")[2])
            if width not in (None, value.shape[1]):
                ours = f"this model takes {width} numbers"
                raise FeatureError(f"{self.path}: {key} has {value.shape[1]}, but {ours}")

    def _checked(self, key: str, value: Tensor) -> Tensor:
        """A tensor as a feature: float32 ``[1, D]``."""
        if not _of_task(key) and key.rpartition("/")[2] not in _KINDS:
            known = "NAME/text, NAME/image, text, image, task/NAME"
            raise FeatureError(f"{self.path}: unknown key {key}: use {known}")
        flat = value.ndim in (1, 2) and value.numel() == value.shape[-1]
        if not flat or not value.is_floating_point():
            kind = f"{value.dtype} {list(value.shape)}".removeprefix("torch.")
            raise FeatureError(f"{self.path}: {key} is {kind}, expected floats [D] or [1, D]")
        if not bool(value.isfinite().all()):
            raise FeatureError(f"{self.path}: {key} is not finite")
        return value.float().reshape(1, -1)


def _of_task(key: str) -> bool:
    return key.startswith(_TASK) and key.rpartition("/")[2] not in _KINDS
