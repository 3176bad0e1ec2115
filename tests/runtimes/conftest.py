"""ExecuTorch on exported models. `make test-runtimes` runs these where it is installed."""

import pytest

MISSING = "RUNTIME MISSING: executorch is not installed here (`make test-runtimes`)"


@pytest.fixture(autouse=True, scope="session")
def _installed() -> None:
    pytest.importorskip("executorch", reason=MISSING)
