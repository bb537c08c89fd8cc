"""Find recipes by their bare names, before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path

import yaml

from mrdiff.cli.errors import CommandError, did_you_mean

__all__ = ["check_yaml", "config_folder", "config_names", "find_config", "resolve_config_flags"]

_FLAGS = ("--config", "-c")
_SUFFIXES = (".yaml", ".yml")


def config_folder() -> Path:
    """The folder of shipped recipes: packaged within ``mrdiff``, else beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "configs"
    return packaged if packaged.is_dir() else package.parent / "configs"


def config_names() -> list[str]:
    """The file names of the shipped recipes, sorted."""
    folder = config_folder()
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.suffix in _SUFFIXES)


def find_config(name: str) -> Path:
    """The file meant by ``name``: a path as it stands, else a name in :func:`config_folder`.

    Raises:
        CommandError: there is no such file; names the closest shipped recipe.
    """
    given = Path(name)
    if given.is_file():
        return given
    bare = given.parent == Path(".")
    candidates = [given.name, *(given.name + suffix for suffix in _SUFFIXES)] if bare else []
    for candidate in candidates:
        shipped = config_folder() / candidate
        if shipped.is_file():
            return shipped
    known = config_names()
    hint = did_you_mean(given.name, known)
    if not hint and bare and known:
        hint = f" (there are {', '.join(known)})"
    raise CommandError(f"no config file {name}{hint}", status=2)


def check_yaml(path: Path) -> None:
    """Read ``path`` as YAML, for an error that names the file and the line.

    Raises:
        CommandError: it is not YAML, or not a mapping of sections.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise CommandError(f"{path}{line}: not YAML: {error.problem}", status=2) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CommandError(f"{path}: not YAML: {error}", status=2) from None
    if content is not None and not isinstance(content, dict):
        raise CommandError(f"{path} is not a mapping such as `trainer: …`", status=2)


def resolve_config_flags(arguments: list[str]) -> list[str]:
    """``arguments`` with every ``--config NAME``, ``--config=NAME`` and ``-c NAME`` made a path.

    Raises:
        CommandError: a config does not exist, or a flag has no value.
    """
    resolved: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        flag, equals, value = argument.partition("=")
        if flag not in _FLAGS:
            resolved.append(argument)
            continue
        if not equals:
            value = next(rest, "")
        if not value:
            raise CommandError(f"{flag} needs the name of a config file", status=2)
        path = find_config(value)
        check_yaml(path)
        resolved += ["--config", str(path)]
    return resolved
