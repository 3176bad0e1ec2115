"""`pytest --plugin FILE`: the contract of embedding methods, over those that a file defines.

pytest loads this module wherever bitfold is installed. Without the option it does nothing: it
declares no fixture, imports no torch, and takes no name but `--bitfold-plugin`. `--plugin` is
declared only where somebody says it, and no other plug-in has declared it.
"""

import os
import shlex
from pathlib import Path

import pytest

OPTION, SHORT = "--bitfold-plugin", "--plugin"
CONTRACT = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the option."""
    names = [OPTION]
    if _says(pluginmanager.get_plugin("pytestconfig"), SHORT):
        names.append(SHORT)
    more = {
        "action": "append",
        "default": [],
        "metavar": "FILE",
        "dest": "bitfold_plugins",
        "help": f"run bitfold's contract over the methods that FILE defines (also {SHORT} FILE)",
    }
    group = parser.getgroup("bitfold", "embedding methods (bitfold)")
    try:
        group.addoption(*names, **more)
    except ValueError:  # another plug-in has a --plugin of its own
        group.addoption(OPTION, **more)


def _says(config: pytest.Config | None, name: str) -> bool:
    """Whether an option is on the command line, or among the options of pytest's configuration."""
    if config is None:
        return False
    said = [*config.invocation_params.args, *shlex.split(os.environ.get("PYTEST_ADDOPTS", ""))]
    said += config.getini("addopts")
    return any(str(word).split("=")[0] == name for word in said)


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
