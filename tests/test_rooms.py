"""The rooms of the package, and which may import which: one way, without circles.

An import inside a function counts: it delays a circle, and does not open it.
"""

import ast
import re
from pathlib import Path

import bitfold
from import_graph import circles, graph_of, modules_of

PACKAGE = Path(bitfold.__file__).parent
GRAPH = graph_of(PACKAGE)

# A room may import the rooms that its line names, and the files below. Lines name earlier rooms
# only: the corridor knows nothing of methods, methods nothing of data, data nothing of models,
# models nothing of the command.
ROOMS = {
    "outputs": "",
    "remote": "",
    "address": "",
    "planning": "address",
    "kernels": "address planning",
    "pool": "address planning kernels",
    "fuse": "address planning pool",
    "optim": "kernels pool",
    "embedder": "address planning pool fuse kernels",
    "fitting": "address planning pool fuse embedder",
    "method": "address planning pool fuse embedder",
    "embedding": "planning fuse embedder fitting method",
    "data": "outputs planning",
    "weights": "planning method data",
    "folded": "outputs planning kernels pool embedder fitting method embedding weights",
    "nets": "address",
    "ranking": "data",
    "runs": "outputs remote planning kernels embedder method embedding data nets ranking",
    "training": "outputs planning kernels pool optim embedder method embedding data nets"
    " ranking runs",
    "streaming": "outputs planning pool kernels optim embedder method embedding data nets runs"
    " training",
    "retrieval": "outputs planning kernels optim method embedding data nets ranking runs training",
    "exporting": "outputs address planning kernels fuse embedder embedding data folded nets runs",
    "testing": "planning fuse pool kernels optim embedder fitting method embedding training",
    "comparison": "outputs address planning optim method embedding data ranking runs training",
    "report": "outputs planning data runs streaming comparison",
    "service": "runs",
    "cli": "outputs remote planning method data weights runs training streaming retrieval"
    " exporting comparison report service",
}
# What every room may import. These files import each other alone.
COMMON = {
    *("bars", "config", "errors", "files", "forks", "notes", "progress", "records"),
    *("settings", "showing", "terminal", "threads"),
}
# What stands on all rooms: the public functions. Nothing imports them.
FACES = {"", "__main__", "api", "extending", "listening", "lite", "sklearn"}


def room_of(module: str) -> str:
    return [*module.split("."), ""][1]


def test_every_file_has_a_room() -> None:
    rooms = {room_of(module) for module in GRAPH}
    assert rooms == ROOMS.keys() | COMMON | FACES


def test_the_page_on_architecture_names_every_room_and_file() -> None:
    page = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)/` \|.*\|(.*)\|$", page, re.MULTILINE)
    assert [room for room, _ in rows] == list(ROOMS)
    files = {f"{room}/{name}" for room, names in rows for name in re.findall(r"`(\S+)`", names)}
    files |= {name for name in re.findall(r"`([\w/]+\.py)`", page) if name.split("/")[0] in ROOMS}
    rows = re.findall(r"^\| (`[\w.]+`(?:, `[\w.]+`)*) \|", page, re.MULTILINE)
    top = {name for row in rows for name in re.findall(r"`(\S+)`", row)}
    assert [name for name in {*files, *top} if not (PACKAGE / name).is_file()] == []
    assert {Path(name).stem for name in top} == COMMON | FACES - {"", "__main__"}


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert circles(GRAPH) == []


def test_rooms_import_one_way() -> None:
    allowed: dict[str, set[str]] = {}
    for room, named in ROOMS.items():
        assert set(named.split()) <= allowed.keys(), f"the line of {room} names a later room"
        allowed[room] = {room, *named.split(), *COMMON}
    allowed["service"] |= {"lite"}  # an exported file is loaded as users load it
    allowed |= dict.fromkeys(COMMON, COMMON)
    allowed |= {face: {*ROOMS, *COMMON, *FACES} for face in FACES}
    wrong = [
        f"{module} imports {other}"
        for module, others in GRAPH.items()
        for other in sorted(others - {"bitfold"})
        if room_of(other) not in allowed[room_of(module)]
    ]
    assert wrong == []


def test_modules_take_nothing_but_the_version_from_the_package() -> None:
    # Its public names are looked up when they are asked for, out of this test's sight.
    taken = set()
    for module, path in modules_of(PACKAGE).items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "bitfold":
                taken.add((module, node.attr))
            elif isinstance(node, ast.ImportFrom) and node.module == "bitfold":
                names = {each.name for each in node.names}
                taken |= {(module, name) for name in names if f"bitfold.{name}" not in GRAPH}
    assert {name for _, name in taken} == {"__version__"}, sorted(taken)


def test_imports_are_found_wherever_they_stand(tmp_path: Path) -> None:
    package = tmp_path / "toy"
    (package / "room").mkdir(parents=True)
    files = {
        "__init__": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from toy import a",
        "a": "import os, toy.room.c\ndef f():\n    from toy.room import b",
        "room/__init__": "",
        "room/b": "from ..a import f\nfrom . import c",
        "room/c": "class C:\n    def f(self):\n        if self:\n            from .b import f",
        "room/d": "from toy.room.c import C\nfrom toy import missing",
    }
    for name, text in files.items():
        (package / f"{name}.py").write_text(text)
    graph = graph_of(package)
    assert graph == {
        "toy": set(),
        "toy.a": {"toy.room.c", "toy.room.b"},
        "toy.room": set(),
        "toy.room.b": {"toy.a", "toy.room.c"},
        "toy.room.c": {"toy.room.b"},
        "toy.room.d": {"toy.room.c", "toy"},
    }
    assert circles(graph) == [["toy.a", "toy.room.b", "toy.room.c"]]
