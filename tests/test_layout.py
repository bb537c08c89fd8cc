"""Rooms import downwards only, and in no circle."""

import ast
from graphlib import TopologicalSorter

from tests.places import ROOT

# From the ground up.
ROOMS = ["system", "networks", "diffusion", "photo", "metrics", "checkpoints", "solvers"]
ROOMS += ["acceleration", "tuning", "official", "training", "restoration", "cli"]
BELOW = {room: set(ROOMS[:floor]) for floor, room in enumerate(ROOMS)}
BELOW |= {"datamodules": {"photo", "system"}, "callbacks": set(ROOMS)}
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("mrdiff", "datamodules", "callbacks")
    for path in (ROOT / package).rglob("*.py")
}


def imports(name: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= whole & FILES.keys() or {str(node.module)}
    return found & FILES.keys()


def test_rooms_import_downwards_and_in_no_circle() -> None:
    graph = {name: imports(name) for name in FILES}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle
    room = {name: name.removeprefix("mrdiff.").partition(".")[0] for name in FILES}
    for name, targets in graph.items():
        allowed = {room[name], "mrdiff", *BELOW.get(room[name], ROOMS)}
        assert {room[target] for target in targets} <= allowed, f"{name} imports {targets}"
