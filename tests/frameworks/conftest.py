"""Models of other people's frameworks, folded: the examples beside them, and real rows.

`make test-frameworks` runs these in an environment that has the frameworks; where one is missing
its tests are skipped, and say so.
"""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from folded_models import EXAMPLES

ROWS = 4096


@pytest.fixture(scope="session")
def needs() -> Callable[[str], Any]:
    """A framework's package; the test skips where it is not installed."""

    def needed(package: str) -> ModuleType:
        reason = f"FRAMEWORK MISSING: {package} is not installed here (`make test-frameworks`)"
        return pytest.importorskip(package, reason=reason)

    return needed


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """A module of examples/frameworks."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module


@pytest.fixture(scope="session")
def log_folder(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared log of MovieLens-1M that all examples read."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        ml1m = importlib.import_module("ml1m")
    finally:
        sys.path.remove(str(EXAMPLES))
    folder = tmp_path_factory.mktemp("ml-1m") / "log"
    ml1m.prepared(shared_data, folder)
    return folder


@pytest.fixture(scope="session")
def log(log_folder: Path) -> Any:
    """Some rows of each part, with the sizes of the whole log."""
    return sys.modules["ml1m"].read(log_folder, ROWS)


@pytest.fixture
def told(
    example: Callable[[str], Any],
    log_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Any]:
    """The figures that an example prints, run as its user runs it, on a few rows."""

    def run(name: str, budget: str, rows: int = ROWS) -> Any:
        words = ["--data", log_folder, "--budget", budget, "--epochs", 2, "--rows", rows]
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        example(name).main()
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return run
