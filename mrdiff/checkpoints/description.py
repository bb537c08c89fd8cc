"""Objects as plain ``class_path`` / ``init_args`` dicts, and back, from allowed packages alone."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from torch import Tensor, nn

from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.process import MRProcess
from mrdiff.diffusion.schedule import MRSchedule

CONFIG_KEY = "mrdiff"  # of the description in a checkpoint
FORMAT = 1
ALLOWED_PACKAGES = ("mrdiff",)
_PARTS = (MRProcess, MRSchedule, nn.Module)  # the objects that a description may contain
# A subclass, such as numpy's float64 or an enumeration's str, as exactly its plain type.
_EXACT: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
}
_ADAPTER = {"rank", "alpha", "targets"}  # of a description's ``lora``
T = TypeVar("T")


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit; one line naming the file."""


def describe(value: Any) -> Any:
    """Plain values of which :func:`build` makes an equal object; arrays become lists.

    An object has each argument of its constructor as an attribute of the same name.

    Raises:
        TypeError: it has not, or is neither plain nor a process, a schedule or a module.
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
    }


def check_description(config: Any) -> None:
    """Raise CheckpointError unless this is a description with all that a model is built of."""
    if not isinstance(config, Mapping):
        raise CheckpointError(f"not written by mrdiff: there is no {CONFIG_KEY!r} entry")
    found = config.get("format")
    if type(found) is not int or found != FORMAT:
        raise CheckpointError(f"this is checkpoint format {found}; this version reads {FORMAT}")
    model = config.get("model")
    if not isinstance(model, Mapping):
        raise CheckpointError("its description has no model")
    process = process_arguments(model.get("process"))
    std: Any = model.get("data_std")
    lora, freeze = model.get("lora"), model.get("freeze") or []
    sound = {
        "network": _is_object(model.get("network")),
        "process": isinstance(process, Mapping) and _is_object(process.get("schedule")),
        "parameterization": isinstance(model.get("parameterization"), str),
        "data_std": type(std) in (int, float) and std > 0,
        "lora": lora is None or (isinstance(lora, Mapping) and lora.keys() <= _ADAPTER),
        "freeze": isinstance(freeze, list) and all(isinstance(name, str) for name in freeze),
    }
    for key, right in sound.items():
        if not right:
            raise CheckpointError(f"model.{key} in its description is missing or damaged")


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


def _is_object(spec: Any) -> bool:
    return isinstance(spec, Mapping) and isinstance(spec.get("class_path"), str)


def build(spec: Mapping[str, Any], base: type[T], *, allow: Sequence[str] = ()) -> T:
    """The instance of ``base`` that a ``class_path`` / ``init_args`` dict describes.

    Descriptions among its arguments, in lists and mappings too, are built as well.

    Raises:
        CheckpointError: a class outside mrdiff and the packages to ``allow``, not found, or of
            another kind; or its constructor refuses the arguments.
    """
    arguments = spec.get("init_args") if _is_object(spec) else ()
    arguments = {} if arguments is None else arguments
    if not isinstance(arguments, Mapping):
        raise CheckpointError(f"no class_path with init_args: {spec!r:.80}")
    class_path = spec["class_path"]
    kind = find_class(class_path, base, allow=allow)
    built = {key: _build_value(value, allow) for key, value in arguments.items()}
    try:
        return kind(**built)
    except Exception as error:  # of arguments that nobody has checked
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise CheckpointError(f"{class_path} cannot be built: {reason}") from error


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


def process_arguments(spec: Any) -> Any:
    """The arguments in a description of the process, or bare ones as a configuration has them."""
    return spec.get("init_args", spec) if isinstance(spec, Mapping) else None


def build_process(spec: Mapping[str, Any], *, allow: Sequence[str] = ()) -> MRProcess:
    """The process of a description or of bare arguments; raises as :func:`build`."""
    bare = {"class_path": public_path(MRProcess), "init_args": spec}
    process = build(spec if "class_path" in spec else bare, MRProcess, allow=allow)
    if not isinstance(process.schedule, MRSchedule):
        raise CheckpointError(f"the schedule of a process is no {type(process.schedule).__name__}")
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
