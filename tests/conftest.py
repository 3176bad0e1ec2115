"""Fixtures that every test may use."""

import gc
import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is no failure: no deadline. A few dozen examples keep the whole run
# short. CI draws the same ones each time; elsewhere they are new in every run.
settings.register_profile("bitfold", deadline=None, max_examples=50, print_blob=True)
settings.register_profile("ci", settings.get_profile("bitfold"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "bitfold")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_finish() -> None:
    """Leave what collecting made, near a million objects, out of every later collection."""
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Every test draws the same numbers, whichever ran before it: modules without a seed do."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real public data beside the repository; the test skips where it is missing."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"REAL DATA MISSING: {SHARED_DATA} is not here, so this test did not run")
    return SHARED_DATA
