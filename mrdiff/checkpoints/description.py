"""Objects as plain ``class_path`` / ``init_args`` dicts, and back, from allowed packages alone."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from torch import Tensor, nn

from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.path import GaussianPath
from mrdiff.diffusion.schedule import MRSchedule

CONFIG_KEY = "mrdiff"  # of the description in a checkpoint
FORMAT = 1
ALLOWED_PACKAGES = ("mrdiff",)
_PARTS = (GaussianPath, MRSchedule, nn.Module)  # the objects that a description may contain
# A subclass, such as numpy's float64 or an enumeration's str, as exactly its plain type.
_EXACT: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
}
T = TypeVar("T")


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit; one line naming the file."""


def describe(value: Any) -> Any:
    """Plain values of which :func:`build` makes an equal object; arrays become lists.

    An object has each argument of its constructor as an attribute of the same name.

    Raises:
        TypeError: it has not, or is neither plain nor a path, a schedule or a module.
    """
    if isinstance(value, (np.generic, np.ndarray, Tensor)):
        value = value.tolist()
    if value is None or isinstance(value, bool):
        return value
    for plain, exact in _EXACT.items():
        if isinstance(value, plain):
            return exact(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (list, tuple)):
        return [describe(item) for item in value]
    if isinstance(value, Mapping):
        return {describe(key): describe(item) for key, item in value.items()}
    kind = type(value)
    if not isinstance(value, _PARTS):
        raise TypeError(f"{kind.__qualname__} {value!r} cannot be written to a checkpoint")
    names = list(inspect.signature(kind).parameters)
    missing = [name for name in names if not hasattr(value, name)]
    if missing:
        raise TypeError(
            f"{kind.__qualname__} cannot be written to a checkpoint: keep the constructor "
            f"argument {missing[0]!r} as an attribute of the same name"
        )
    init_args = {name: describe(getattr(value, name)) for name in names}
    return {"class_path": public_path(kind), "init_args": init_args}


def describe_denoiser(denoiser: Denoiser) -> dict[str, Any]:
    """The part of a checkpoint's description that sampling needs."""
    return {
        "network": describe(denoiser.network),
        "process": describe(denoiser.process),
        "parameterization": denoiser.parameterization.name,
        "data_std": describe(denoiser.data_std),
        "start": describe_start(denoiser),
    }


def describe_start(denoiser: Denoiser) -> dict[str, Any] | None:
    """The part of it about the model that the path starts from; None without one."""
    return None if denoiser.start is None else describe_denoiser(denoiser.start)


def public_path(kind: type) -> str:
    """The import path of a class: its uppermost package with it in ``__all__``, or its module."""
    parts = kind.__module__.split(".")
    for depth in range(1, len(parts)):
        name = ".".join(parts[:depth])
        package = importlib.import_module(name)
        offered = kind.__qualname__ in getattr(package, "__all__", ())
        if offered and getattr(package, kind.__qualname__, None) is kind:  # not another's name
            return f"{name}.{kind.__qualname__}"
    return f"{kind.__module__}.{kind.__qualname__}"


def build(spec: Mapping[str, Any], base: type[T], *, allow: Sequence[str] = ()) -> T:
    """The instance of ``base`` that a ``class_path`` / ``init_args`` dict describes.

    Descriptions among its arguments, in lists and mappings too, are built as well.

    Raises:
        CheckpointError: a class outside mrdiff and the packages to ``allow``, not found, or of
            another kind; or its constructor refuses the arguments.
    """
    if not isinstance(spec, Mapping) or not isinstance(spec.get("class_path"), str):
        raise CheckpointError(f"no class_path with init_args: {spec!r:.80}")
    class_path = spec["class_path"]
    kind = find_class(class_path, base, allow=allow)
    arguments: Any = [spec.get(key) or {} for key in ("init_args", "dict_kwargs")]
    if not all(isinstance(part, Mapping) for part in arguments):
        raise CheckpointError(f"no class_path with init_args: {spec!r:.80}")
    built = [{k: _build_value(value, allow) for k, value in part.items()} for part in arguments]
    if kind.__module__.partition(".")[0] in ALLOWED_PACKAGES:  # others' hints are their affair
        hints = get_type_hints(kind.__init__)
        for name, value in built[0].items():
            if not _fits(value, hints.get(name, Any)):
                found = type(value).__name__
                raise CheckpointError(f"{class_path}: {name} cannot be of the type {found}")
    try:
        return kind(**built[0], **built[1])
    except CheckpointError:
        raise
    except Exception as error:  # of arguments that nobody has checked
        reason = f"{type(error).__name__}: {' '.join(str(error).split()):.200}"
        raise CheckpointError(f"{class_path} cannot be built: {reason}") from error


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type as our constructors have them; what is none of those passes."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in inner)
    if origin in (Sequence, list, tuple):
        return isinstance(value, (list, tuple)) and all(_fits(item, inner[0]) for item in value)
    if hint is Any or not isinstance(hint, type):
        return True
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, hint)


def _build_value(value: Any, allow: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_build_value(item, allow) for item in value]
    if not isinstance(value, Mapping):
        return value
    if "class_path" not in value:
        return {key: _build_value(item, allow) for key, item in value.items()}
    kind = find_class(str(value["class_path"]), object, allow=allow)
    base = next((part for part in _PARTS if issubclass(kind, part)), nn.Module)
    return build(value, base, allow=allow)


def build_process(spec: Mapping[str, Any], *, allow: Sequence[str] = ()) -> GaussianPath:
    """The path of a description; raises as :func:`build`."""
    process: GaussianPath = build(spec, GaussianPath, allow=allow)  # type: ignore[type-abstract]
    schedule = getattr(process, "schedule", None)
    if schedule is not None and not isinstance(schedule, MRSchedule):
        raise CheckpointError(f"the schedule of a process is no {type(schedule).__name__}")
    return process


def find_class(class_path: str, base: type[T], *, allow: Sequence[str] = ()) -> type[T]:
    """The class at an import path, which is imported only if its package is allowed.

    Raises:
        CheckpointError: outside the allowed packages, not found, or not a ``base``.
    """
    _check_package(class_path, class_path, allow)
    module_name, _, name = class_path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise CheckpointError(f"the class {class_path} cannot be imported: {error}") from error
    if not (inspect.isclass(kind) and issubclass(kind, base)):
        raise CheckpointError(f"{class_path} is not a {base.__name__}")
    # An allowed module also has what it imports from others: the class must be its own.
    _check_package(f"{kind.__module__}.{kind.__qualname__}", class_path, allow)
    return kind


def class_paths(spec: Any) -> list[str]:
    """Every ``class_path`` in a description, nested ones included."""
    if isinstance(spec, Mapping):
        own = [str(spec["class_path"])] if "class_path" in spec else []
        return own + [path for value in spec.values() for path in class_paths(value)]
    if isinstance(spec, (list, tuple)):
        return [path for value in spec for path in class_paths(value)]
    return []


def _check_package(home: str, class_path: str, allow: Sequence[str]) -> None:
    package = home.partition(".")[0]
    if package not in (*ALLOWED_PACKAGES, *allow):
        raise CheckpointError(
            f"the class {class_path} is outside the allowed packages; if you trust it, allow "
            f"{package!r} (--allow_package {package}, or load_model(..., allow=[{package!r}]))"
        )
