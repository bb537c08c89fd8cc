"""Arguments of a training run, made ready for Lightning's command line without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from mrdiff.cli.common.errors import CommandError, did_you_mean
from mrdiff.system.untrusted import BoundedLoader

SUBCOMMANDS = ("fit", "validate", "test")
_FLAGS = ("--config", "-c")
_SUFFIXES = (".yaml", ".yml")
_SECTIONS = {"model", "data", "trainer"}


def config_folder() -> Path:
    """The folder of shipped recipes: packaged within ``mrdiff``, else beside it in a checkout."""
    package = Path(__file__).resolve().parents[2]
    packaged = package / "configs"
    return packaged if packaged.is_dir() else package.parent / "configs"


def config_names() -> list[str]:
    """The shipped recipes, sorted: file names, and ``paths/goub.yaml`` of those in folders."""
    folder = config_folder()
    found = (path for path in folder.rglob("*") if path.suffix in _SUFFIXES)
    return sorted(path.relative_to(folder).as_posix() for path in found)


def find_config(name: str, *, beside: Path | None = None) -> Path:
    """The file meant by ``name``: one in the folder of ``beside``, a path, or a shipped recipe.

    Raises:
        CommandError: there is no such file; names the closest shipped recipe.
    """
    given = Path(name)
    places = [given] if beside is None else [beside.parent / given, given]
    places += [config_folder() / (name + suffix) for suffix in ("", *_SUFFIXES)]
    for place in places:
        if place.is_file():
            return place
    known = config_names()
    hint = did_you_mean(name, known)
    if not hint and known and given.parent == Path("."):
        hint = f" (there are {', '.join(known)})"
    where = "" if beside is None else f"{beside}: base: "
    raise CommandError(f"{where}no config file {name}{hint}", status=2)


def _refuse_repeated_keys(root: yaml.Node | None, path: Path) -> None:
    """Raise CommandError where a mapping names a key twice, of which YAML takes the last."""
    nodes = [] if root is None else [root]
    met: set[int] = set()
    while nodes:
        node = nodes.pop()
        if id(node) in met:  # by an alias
            continue
        met.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
        elif isinstance(node, yaml.MappingNode):
            lines: dict[tuple[str, str], int] = {}
            for key, value in node.value:
                nodes.append(value)
                if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                    continue
                line, name = key.start_mark.line + 1, (key.tag, key.value)
                if name in lines:
                    message = f"the key {key.value} stands in line {lines[name]} already"
                    raise CommandError(f"{path}, line {line}: {message}", status=2)
                lines[name] = line


def read_yaml(path: Path) -> dict[str, Any]:
    """The content.

    Raises:
        CommandError: it is no YAML mapping, a key of it stands twice, or a section is empty; names
            file and line.
    """
    try:
        loader = BoundedLoader(path)
        root = loader.get_single_node()
        _refuse_repeated_keys(root, path)
        content = None if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise CommandError(f"{path}{line}: not YAML: {error.problem}", status=2) from None
    except (yaml.YAMLError, ValueError, AttributeError, LookupError) as error:  # odd dates, numbers
        raise CommandError(f"{path}: not YAML: {error}", status=2) from None
    if content is not None and not isinstance(content, dict):
        raise CommandError(f"{path} is not a mapping such as `trainer: …`", status=2)
    content = content or {}
    for name in sorted(_SECTIONS & content.keys()):
        if not isinstance(content[name], dict):
            what = "is empty" if content[name] is None else "is no mapping"
            message = f"{path}: the section {name} {what}: give it keys, or leave it out"
            raise CommandError(message, status=2)
    return content


def with_bases(path: Path, *, below: tuple[Path, ...] = ()) -> list[Path]:
    """``path`` after the files that its key ``base`` names, and theirs: the last one wins.

    ``base`` is a name or a list of names, of files beside ``path`` or of shipped recipes; ``below``
    are the files that led here.
    """
    if path.resolve() in below:
        raise CommandError(f"{path} is its own base", status=2)
    bases = read_yaml(path).get("base") or []
    names = [bases] if isinstance(bases, str) else bases
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CommandError(f"{path}: base: expected a config file or a list of them", status=2)
    found: list[Path] = []
    for name in names:
        found += with_bases(find_config(name, beside=path), below=(*below, path.resolve()))
    return [*found, path]


def resolve_config_flags(arguments: list[str]) -> list[str]:
    """``arguments`` with every ``--config NAME``, ``--config=NAME`` and ``-c NAME`` made paths.

    Each file comes after those it is based on; a base that several share comes once.
    """
    resolved: list[str] = []
    rest = iter(arguments)
    seen: list[Path] = []
    for argument in rest:
        flag, equals, value = argument.partition("=")
        if flag not in _FLAGS:
            resolved.append(argument)
            continue
        if not equals:
            value = next(rest, "")
        if not value:
            raise CommandError(f"{flag} needs the name of a config file", status=2)
        *bases, path = with_bases(find_config(value))
        for file in [*bases, path]:
            if file == path or file.resolve() not in seen:
                resolved += ["--config", str(file)]
            seen.append(file.resolve())
    return resolved


def prepare(arguments: list[str]) -> list[str]:
    """The arguments for Lightning's command line: a subcommand first, every config a path.

    Raises:
        CommandError: no or no such configuration, or an unknown subcommand.
    """
    subcommand = "fit"
    if arguments and arguments[0] in SUBCOMMANDS:
        subcommand, *arguments = arguments
    elif arguments and not arguments[0].startswith("-"):
        names = ", ".join(SUBCOMMANDS)
        raise CommandError(f"unknown command {arguments[0]}: expected one of {names}", status=2)
    resolved = resolve_config_flags(arguments)
    if "--config" not in resolved and not {"--help", "-h"} & set(resolved):
        names = ", ".join(config_names())
        raise CommandError(f"no --config given; shipped recipes: {names}", status=2)
    return [subcommand, *resolved]
