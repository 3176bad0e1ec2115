"""`pytest --plugin FILE`: the contract of embedding methods, over those that a file defines.

pytest loads this module wherever bitfold is installed. Without the option it does nothing: it
declares no fixture, imports no torch, and takes no name but `--bitfold-plugin`. `--plugin` is
declared only where somebody says it, and no other plug-in has declared it.
"""

import argparse
from pathlib import Path
from typing import Any

import pytest

OPTION, SHORT = "--bitfold-plugin", "--plugin"
CONTRACT = Path(__file__).parent
FILES: dict[str, Any] = {
    "action": "append",
    "default": [],
    "metavar": "FILE",
    "dest": "bitfold_plugins",
    "help": f"run bitfold's contract over the methods that FILE defines (also {SHORT} FILE)",
}


def _group(parser: pytest.Parser) -> Any:
    return parser.getgroup("bitfold", "embedding methods (bitfold)")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the long option."""
    _group(parser).addoption(OPTION, **FILES)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(parser: pytest.Parser, args: list[str]) -> None:
    """Declare the short option where it is said: by now other plug-ins have declared theirs."""
    if any(str(word).split("=")[0] == SHORT for word in args):
        try:
            _group(parser).addoption(SHORT, **FILES)
        except (ValueError, argparse.ArgumentError):
            return  # it is somebody else's


def pytest_configure(config: pytest.Config) -> None:
    """Register the methods, and add the contract to what is collected.

    Paths that are said are all that runs. Without them the contract runs alone, or beside the
    project's own `testpaths`.
    """
    files = config.getoption("bitfold_plugins", default=None)
    if not files:
        return
    from bitfold.errors import BitfoldError
    from bitfold.testing.cases import load

    try:
        load(config.invocation_params.dir / file for file in files)
    except BitfoldError as error:
        raise pytest.UsageError(str(error)) from error
    source = config.args_source
    if source is config.ArgsSource.INVOCATION_DIR:
        config.args = [str(CONTRACT)]
    elif source is config.ArgsSource.TESTPATHS:
        config.args = [*config.args, str(CONTRACT)]
