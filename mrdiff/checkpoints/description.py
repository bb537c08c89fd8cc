"""Objects as plain ``class_path`` / ``init_args`` dicts, and back, from allowed packages alone."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from mrdiff.diffusion.schedule import MRSchedule

ALLOWED_PACKAGES = ("mrdiff",)
_PLAIN = (str, int, float, bool, type(None))
T = TypeVar("T")


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit; one line naming the file."""


def describe(value: Any) -> Any:
    """Plain dicts from which :func:`build` makes an equal object.

    The object must keep each argument of its constructor as an attribute of the same name.

    Raises:
        TypeError: if it does not.
    """
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, (list, tuple)):
        return [describe(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, Tensor):
        return value.tolist()
    names = list(inspect.signature(type(value)).parameters)
    missing = [name for name in names if not hasattr(value, name)]
    if missing:
        raise TypeError(
            f"{type(value).__qualname__} cannot be written to a checkpoint: keep the constructor "
            f"argument {missing[0]!r} as an attribute of the same name"
        )
    init_args = {name: describe(getattr(value, name)) for name in names}
    kind = type(value)
    return {
        "class_path": public_path(kind),
        "init_args": init_args,
    }


def public_path(kind: type) -> str:
    """The import path of a class: the shortest of its packages that has it in ``__all__``.

    A class that none of them has there is named by its own module.
    """
    parts = kind.__module__.split(".")
    for depth in range(1, len(parts)):
        name = ".".join(parts[:depth])
        if kind.__qualname__ in getattr(importlib.import_module(name), "__all__", ()):
            return f"{name}.{kind.__qualname__}"
    return f"{kind.__module__}.{kind.__qualname__}"


def build(spec: Mapping[str, Any], base: type[T], *, allow: Sequence[str] = ()) -> T:
    """The object that a ``class_path`` / ``init_args`` dict describes.

    Args:
        spec: the description; nested descriptions are built too.
        base: the class it must be an instance of.
        allow: packages allowed besides mrdiff itself.

    Raises:
        CheckpointError: class outside the allowed packages, not found, or of another kind.
    """
    class_path = str(spec.get("class_path"))
    kind = find_class(class_path, base, allow=allow)
    arguments = {}
    for key, value in (spec.get("init_args") or {}).items():
        nested = isinstance(value, Mapping) and "class_path" in value
        arguments[key] = _build_part(value, allow) if nested else value
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{class_path} cannot be built: {error}") from error


def find_class(class_path: str, base: type[T], *, allow: Sequence[str] = ()) -> type[T]:
    """The class at an import path, which is imported only if its package is allowed.

    Raises:
        CheckpointError: outside the allowed packages, not found, or of another kind.
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


def _build_part(spec: Mapping[str, Any], allow: Sequence[str]) -> object:
    """What a description may contain: a schedule or a module."""
    try:
        return build(spec, MRSchedule, allow=allow)  # type: ignore[type-abstract]
    except CheckpointError:
        return build(spec, nn.Module, allow=allow)


def _check_package(home: str, class_path: str, allow: Sequence[str]) -> None:
    """Refuse a class that lives outside the allowed packages."""
    package = home.partition(".")[0]
    if package not in (*ALLOWED_PACKAGES, *allow):
        raise CheckpointError(
            f"the class {class_path} is outside the allowed packages; if you trust it, allow "
            f"{package!r} (--allow_package {package}, or load_model(..., allow=[{package!r}]))"
        )
