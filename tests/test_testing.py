"""`pytest --plugin FILE`: it runs the contract, finds what is wrong, and else is not there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
METHOD = """
from dataclasses import dataclass
from typing import ClassVar

from bitfold.address.mixing import derive_salt
from bitfold.method.hash import Hash


@dataclass(frozen=True)
class Mine(Hash):
    '''The hash trick under a name of its own.'''

    name: ClassVar[str] = "mine"
    summary: ClassVar[str] = "one of my own"
    when: ClassVar[str] = "never"
    forms: ClassVar = ({}, {"allocation": 1.0})
"""
BROKEN = {
    "counts fewer bytes": (
        "def plan(self, ask):\n"
        "        from dataclasses import replace\n"
        "        return replace(super().plan(ask), own={'weights': -24})",
        "test_bytes_equal_the_serving_state_to_the_byte",
    ),
    "forgets its budget": (
        "def plan(self, ask):\n"
        "        from dataclasses import replace\n"
        "        return super().plan(replace(ask, budget=20_000))",
        "test_a_budget_is_held_and_a_larger_one_never_refused",
    ),
    "draws by itself": (
        "def build(self, plan, **words):\n"
        "        return super().build(plan, **words | {'seed': None})",
        "test_the_same_seed_gives_the_same_vectors_and_another_seed_others",
    ),
}


def run(folder: Path, *words: str, code: int = 0, entry: bool = True) -> str:
    """What pytest says in a folder, in a process of its own."""
    loaded = ["-p", "bitfold.testing.plugin"] if entry else []
    environment = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *loaded, *words],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)


def test_the_contract_runs_over_the_methods_of_a_file_alone(tmp_path: Path) -> None:
    write(tmp_path, mine=METHOD, test_own="def test_nobody(): assert False")
    said = run(
        tmp_path,
        "--plugin",
        "mine.py",
        "-v",
        "-k",
        "bags_of_a_collection or vectors_and_another or nobody",
    )
    ran = re.findall(r"(test_\w+)\[(\S+)\] PASSED", said)
    assert {name for name, _ in ran} >= {
        "test_bags_of_a_collection_equal_the_loop",
        "test_the_same_seed_gives_the_same_vectors_and_another_seed_others",
    }
    cases = {case for _, case in ran}
    assert "mine" in cases
    assert "mine-allocation=1.0" in cases
    assert all(case.startswith("mine") for case in cases)
    assert "test_nobody" not in said  # it is of no testpaths: the contract alone was asked for


def test_what_breaks_the_contract_is_found(tmp_path: Path) -> None:
    text = METHOD
    for number, (method, _) in enumerate(BROKEN.values()):
        name = f'name: ClassVar[str] = "broken-{number}"'
        text += (
            f"\n\n@dataclass(frozen=True)\nclass Broken{number}(Mine):\n    {name}\n    {method}\n"
        )
    write(tmp_path, mine=text)
    wanted = [test for _, test in BROKEN.values()]
    said = run(tmp_path, "--plugin=mine.py", "-q", "-k", " or ".join(wanted), code=1)
    for number, (what, (_, test)) in enumerate(BROKEN.items()):
        assert re.search(rf"FAILED \S+::{test}\[broken-{number}", said), what
    assert not re.search(r"FAILED \S+\[mine", said)


NOTHING = """
import sys

def test_nothing_is_loaded(request):
    assert "torch" not in sys.modules
    assert "numpy" not in sys.modules
    assert "bitfold.testing.plugin" in sys.modules
    assert not request.config.getoption("bitfold_plugins")

def test_no_fixture_of_ours(request):
    for name in ("case", "cases", "small", "threads"):
        assert request.session._fixturemanager.getfixturedefs(name, request.node) is None
"""


def test_without_the_option_nothing_is_there(tmp_path: Path) -> None:
    write(tmp_path, test_nothing=NOTHING)
    assert "2 passed" in run(tmp_path, "-q")
    taken = run(tmp_path, "--help")
    assert "--bitfold-plugin" in taken
    assert not re.search(r"^\s+--plugin[ =]", taken, re.MULTILINE)


def test_another_option_of_that_name_stays(tmp_path: Path) -> None:
    write(
        tmp_path,
        theirs="def pytest_addoption(parser): parser.addoption('--plugin', default='none')",
        test_theirs="def test_it(pytestconfig): assert pytestconfig.getoption('plugin') == 'red'",
        mine=METHOD,
    )
    both = ["-p", "theirs", "-p", "bitfold.testing.plugin"]
    for order in (both, both[2:] + both[:2]):
        environment = ["-o", "pythonpath=.", *order]
        assert "1 passed" in run(tmp_path, *environment, "--plugin", "red", "-q", entry=False)


def test_paths_and_testpaths(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    write(tmp_path, mine=METHOD)
    write(tmp_path / "own", test_own="def test_own(): pass")
    options = ("--plugin", "mine.py", "-q", "--collect-only")
    said = run(tmp_path, *options, "own")
    assert "test_own" in said
    assert "mine" not in said
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = own\naddopts = --plugin mine.py\n")
    said = run(tmp_path, "-q", "--collect-only")
    assert "test_own" in said
    assert "test_bytes_equal_the_serving_state_to_the_byte[mine-" in said


def test_a_file_that_is_none_is_told_in_one_message(tmp_path: Path) -> None:
    said = run(tmp_path, "--plugin", "absent.py", code=4)
    assert "no plugin there" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_the_whole_contract_in_two_processes(tmp_path: Path) -> None:
    write(tmp_path, mine=METHOD)
    said = run(tmp_path, "--plugin", "mine.py", "-q", "-n", "2")
    assert re.search(r"\d{3} passed", said)
