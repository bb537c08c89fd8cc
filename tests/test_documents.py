"""What the documents say to type can be typed: the program that a command names parses it.

An indented block, and one fenced as ``sh``, is commands; everything else is fenced with its
language. Commands within a line count if they have a flag. What they do is asked by other tests.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from markdown_it import MarkdownIt
from PIL import Image

import callbacks
import datamodules
import mrdiff
from mrdiff.cli.main import main
from mrdiff.cli.train.arguments import prepare
from mrdiff.cli.train.run import BuiltRun, build_run
from tests.places import ROOT
from tests.tiny_model import write_tiny_checkpoint

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
INLINE = re.compile(
    r"(?:python (?:train|sample)\.py|mrdiff [a-z]+) .*--(?:checkpoint|config) |python -m \S+ .*--\w"
)
# What is not parsed, and why.
ELSEWHERE = {
    r"^\. \.venv/bin/activate": "the shell's own",
    r"^curl |hf://|^hf ": "needs the network",
    r"^mrdiff prepare NAME": "a pattern, not a command",
    r"^pip install .*(torch|ftfy)": "not a part of mrdiff",
    r"^pre-commit install": "changes the repository",
    r"^python3 -m venv": "Python's own",
    r"^tensorboard --logdir": "TensorBoard's own",
    r"^torchrun ": "PyTorch's own, and abridged",
}
Fences = list[tuple[str, str]]  # of each fenced block its place and its text


class Parsed(BaseException):
    """A program has understood its arguments."""


def tokens(path: Path) -> Iterator[tuple[str, Any]]:
    """The parts of a document with their places, ``file:line``."""
    name, line = path.relative_to(ROOT), 1
    for token in MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8")):
        line = token.map[0] + 1 if token.map else line
        for part in (token, *(token.children or [])):
            yield f"{name}:{line}", part


def fenced(language: str, paths: list[Path] = DOCUMENTS) -> Fences:
    parts = (found for path in paths for found in tokens(path))
    return [(place, part.content) for place, part in parts if part.info == language]


def commands() -> dict[str, str]:
    """The place of each command."""
    found: dict[str, str] = {}
    for place, part in (found for path in DOCUMENTS for found in tokens(path)):
        lines: list[str] = []
        if part.type == "code_block" or part.info == "sh":
            lines = [line.strip() for line in part.content.replace("\\\n", " ").splitlines()]
        elif part.type == "code_inline" and INLINE.match(part.content) and "…" not in part.content:
            lines = [part.content]
        for line in lines:
            if line := re.sub(r"(^|\s+)#.*", "", line):
                found.setdefault(line, place)
    return found


def programs(command: str) -> Iterator[list[str]]:
    """The words of each program in a line, without comments and redirections."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words = [*lexer, ";"]
    for index in [i for i, word in enumerate(words) if word in ("<", ">")][::-1]:
        del words[index : index + 2]
    while words:
        end = next(i for i, word in enumerate(words) if word in ("|", "&&", ";"))
        if end:
            yield words[:end]
        words = words[end + 1 :]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with the files that the documents speak of."""
    folder = tmp_path_factory.mktemp("documents")
    best = write_tiny_checkpoint(folder / "best.ckpt")
    state = torch.load(best, weights_only=True)
    pairs = {"class_path": "datamodules.PairedFolder", "init_args": {"lq": "a", "gt": "b"}}
    state["mrdiff"]["data"] = {"train": pairs}
    runs = [folder / "runs" / name / "version_0" / "checkpoints" for name in ("derain", "finetune")]
    kept = [run / name for run in runs for name in ("best.ckpt", "last.ckpt")]
    for path in (best, folder / "FILE", *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, path)
    for path in (folder / "RECIPE", runs[0].with_name("config.yaml")):
        path.write_text("base: derain.yaml")
    (folder / "mine.py").write_text("\n".join(t for _, t in fenced("python") if "# mine.py" in t))
    for _, text in fenced("yaml"):
        if named := re.match(r"# (\w+\.yaml)", text):
            (folder / named[1]).write_text(text)
    for name in ("photo", "rainy"):
        Image.linear_gradient("L").convert("RGB").resize((64, 48)).save(folder / f"{name}.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        patch.delitem(sys.modules, "mine", raising=False)  # a folder of another test may be one
        yield folder
        sys.modules.pop("mine", None)


@pytest.fixture(scope="module")
def parse_training(folder: Path) -> Iterator[Callable[[list[str]], None]]:
    """The parser of training, made once, which takes seconds; nothing is built."""
    with pytest.MonkeyPatch.context() as patch:
        for step in ("instantiate_classes", "after_instantiate_classes"):
            patch.setattr(BuiltRun, step, lambda self: None)
        run, known = build_run(prepare(["--config", "derain.yaml"])), set[str]()

        def parse(arguments: list[str]) -> None:
            line = re.sub(r"(--data\.root) \S+", r"\1", " ".join(arguments))
            if line not in known:  # half a second each
                run.parse_arguments(run.parser, prepare(arguments))
                known.add(line)

        yield parse


def stopping(parse: Callable[..., Any]) -> Callable[..., None]:
    def parse_and_stop(*arguments: Any) -> None:
        parse(*arguments)
        raise Parsed

    return parse_and_stop


def is_elsewhere(command: str) -> bool:
    return any(re.search(pattern, command) for pattern in ELSEWHERE)


def parse_mrdiff(name: str, arguments: list[str], parse_training: Any) -> None:
    if name in ("doctor", "preview"):
        module = importlib.import_module(f"mrdiff.cli.{name}.command")
        _, arguments = module.make_parser(name).parse_known_args(arguments)
    if name in ("doctor", "preview", "train"):
        parse_training(arguments)
        raise Parsed
    assert main([name, *arguments]) is None  # it does not return


def run_until_parsed(words: list[str], parse_training: Any) -> None:
    """Raise Parsed, or what is wrong."""
    match words:
        case ["python", "train.py", *rest]:
            parse_mrdiff("train", rest, parse_training)
        case ["python", "sample.py", *rest]:
            parse_mrdiff("sample", rest, parse_training)
        case ["python", "-m", module, *rest]:
            sys.argv[1:] = rest
            runpy.run_module(module, run_name="__main__")
        case ["mrdiff", name, *rest]:
            parse_mrdiff(name, rest, parse_training)
        case ["make", *targets]:
            rules = (ROOT / "Makefile").read_text()
            named = [target for target in targets if "=" not in target]  # the others set a variable
            assert all(re.search(rf"^{target}:", rules, re.M) for target in named)
        case ["pip", "install", *rest]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
            named = re.findall(r"(?:mrdiff|\.)\[(.*)\]", " ".join(rest))
            named = [name for names in named for name in names.split(",")]
            assert {*named} <= {*extras["optional-dependencies"]}
            assert named or rest[-2:] == ["-e", "."] or "mrdiff" in rest
        case ["pytest", *paths]:
            assert all((ROOT / path).exists() for path in paths)
        case [path] if (ROOT / path).is_file() and os.access(ROOT / path, os.X_OK):
            pass
        case _:
            raise AssertionError("who runs it?")
    raise Parsed


@pytest.mark.parametrize("command", commands())
def test_commands_can_be_parsed(
    command: str, parse_training: Any, monkeypatch: Any, capsys: Any
) -> None:
    for name in ("parse_args", "parse_intermixed_args"):
        parse = getattr(argparse.ArgumentParser, name)
        monkeypatch.setattr(argparse.ArgumentParser, name, stopping(parse))
    monkeypatch.setattr(sys, "argv", [""])
    for words in programs(command):
        if is_elsewhere(" ".join(words)):
            continue
        try:
            run_until_parsed(words, parse_training)
        except Parsed:
            continue
        except (Exception, SystemExit) as error:
            if isinstance(error, SystemExit) and error.code == 0:  # it has printed something
                continue
            said = capsys.readouterr().err.strip() or error
            pytest.fail(f"{commands()[command]}: {command}\n{said}", pytrace=False)


def test_the_exceptions_are_needed() -> None:
    parts = [" ".join(words) for command in commands() for words in programs(command)]
    for pattern in ELSEWHERE:
        assert any(re.search(pattern, part) for part in parts), pattern


def test_every_block_has_a_language() -> None:
    known = {"python", "sh", "text", "yaml"}
    for place, part in (found for path in DOCUMENTS for found in tokens(path)):
        assert part.type != "fence" or part.info in known, f"{place}: ```{part.info}"


def test_python_compiles_and_yaml_can_be_read() -> None:
    for place, text in fenced("python"):
        compile(text, place, "exec")
    for place, text in fenced("yaml"):
        assert isinstance(yaml.safe_load(text), dict), place


def test_the_first_things_to_try_work(folder: Path) -> None:
    """The command and the programs of the front page and of the quick start."""
    assert main(["sample", "photo.jpg"]) == 0
    assert Image.open(folder / "photo_restored.jpg").size == (64, 48)
    for place, text in fenced("python", [ROOT / "README.md", ROOT / "docs" / "quick_start.md"]):
        exec(compile(text, place, "exec"), {})
    assert Image.open(folder / "restored.png").size == (64, 48)


def test_public_names_and_results_are_documented() -> None:
    listed = {*re.findall(r"^::: (\S+)$", (ROOT / "docs" / "api.md").read_text(), re.M)}
    packages = (mrdiff, datamodules, datamodules.degradations, callbacks)
    public = {f"{package.__name__}.{name}" for package in packages for name in package.__all__}
    types = {"datamodules.Sample", "datamodules.Source"}  # of dicts and of a union
    assert listed == public - types
    results = (ROOT / "docs" / "results.md").read_text()
    for path in (ROOT / "benchmarks" / "results").glob("*.md"):
        assert f"(../benchmarks/results/{path.name})" in results, f"docs/results.md lacks {path}"
