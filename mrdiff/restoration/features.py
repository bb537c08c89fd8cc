"""Features of photos, for networks that another network helps to see.

Either something makes them of the photo, or they lie in a file that ``mrdiff features`` wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from mrdiff.networks.conditions import FeatureError, pick_features
from mrdiff.networks.protocol import Context, known_features
from mrdiff.system.files import replacing
from mrdiff.system.untrusted import check_regular

__all__ = ["FeatureMaker", "StoredFeatures", "check_features", "gather_features"]

# Of an image [1, 3, H, W] in [0, 1] the features [1, D] by their names.
FeatureMaker = Callable[[Tensor], Mapping[str, Tensor]]

_KINDS = ("text", "image")
_TASK = "task/"


def check_features(network: nn.Module, task: str, make: FeatureMaker | None) -> None:
    """Raise FeatureError if a network takes no features, or takes them instead of a task's name."""
    taken = known_features(network)
    if make is not None and not taken:
        raise FeatureError("this model takes no features: leave out --daclip and --context")
    if taken and task != "auto":
        cure = f"give --context FILE that holds task/{task}"
        raise FeatureError(f"task {task}: this model takes features instead: {cure}")


def gather_features(
    network: nn.Module,
    mu: Tensor,
    given: Sequence[Mapping[str, Tensor]] | None,
    make: FeatureMaker | None,
) -> Context:
    """The features ``[B, D]`` that a network takes, of each image ``[B, 3, H, W]`` by itself.

    ``given`` are of each image those that are known, ``[1, D]``; ``make`` makes the others.

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
    a task. A key or a tensor that is none of these is a FeatureError of one line.
    """

    def __init__(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        self.path = path
        self._tensors = {key: self._checked(key, value) for key, value in tensors.items()}

    @classmethod
    def read(cls, path: Path) -> StoredFeatures:
        """Read a file; one that is none is a FeatureError, too."""
        try:
            check_regular(path)
            return cls(path, load_file(path))
        except FileNotFoundError:
            raise FeatureError(f"no file of features at {path}") from None
        except OSError as error:
            raise FeatureError(f"{path}: {error.strerror or error}") from error
        except SafetensorError as error:
            raise FeatureError(f"{path} is not a readable .safetensors file: {error}") from error

    def write(self) -> None:
        """Write the file; it appears when it is whole."""
        content = save({key: value[0].cpu().clone() for key, value in self._tensors.items()})
        with replacing(self.path) as temporary:
            temporary.write_bytes(content)

    def of(self, name: str, *, task: str | None = None) -> Context:
        """The features ``[1, D]`` that are stored for the photo ``name``, perhaps none.

        The text feature is that of ``task``, if given; a FeatureError if there is none.
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
        """Raise FeatureError unless the widths are those of the features that a network takes."""
        for key, value in self._tensors.items():
            width = taken.get("text" if _of_task(key) else key.rpartition("/")[2])
            if width not in (None, value.shape[1]):
                ours = f"this model takes {width} numbers"
                raise FeatureError(f"{self.path}: {key} has {value.shape[1]}, but {ours}")

    def _checked(self, key: str, value: Tensor) -> Tensor:
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
