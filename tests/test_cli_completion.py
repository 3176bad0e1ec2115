"""What the shell completes: commands, options, and their values."""

import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete

from bitfold.cli.entry import cli
from bitfold.cli.options import COMMON
from bitfold.data.config import DataConfig
from bitfold.method.names import BUILT_IN, known_names
from bitfold.method.registry import methods
from bitfold.runs.options import NETWORK_NAMES
from command import bitfold


def offered(*words: str) -> list[tuple[str, str]]:
    """The kind and text of what is offered for the last word of a command line."""
    shell = ShellComplete(cli, {}, "bitfold", "_BITFOLD_COMPLETE")
    return [(each.type, each.value) for each in shell.get_completions([*words[:-1]], words[-1])]


def values(*words: str) -> list[str]:
    return [value for _, value in offered(*words)]


@pytest.mark.parametrize("command", ["train", "plan"])
def test_methods(command: str) -> None:
    assert values(command, "--method", "") == known_names()
    assert values(command, "--method", "b") == ["binary-code"]


def test_lists_go_on_after_the_comma() -> None:
    found = values("compare", "--methods", "full,h")
    assert found == [f"full,{name}" for name in known_names() if name.startswith("h")]
    assert "full,full" not in values("compare", "--methods", "full,")


def test_networks_and_formats() -> None:
    assert values("train", "--network", "") == list(NETWORK_NAMES)
    assert values("train", "--network", "dc") == ["dcnv2"]
    formats = DataConfig.__dataclass_fields__["format"].metadata["choices"]
    assert values("prepare", "--format", "") == list(formats)
    assert values("prepare", "--format", "cri") == ["criteo"]


def test_commands_options_and_files() -> None:
    assert values("tr") == ["train"]
    assert "--budget" in values("train", "--bu")
    assert offered("train", "clicks") == [("file", "clicks")]
    assert offered("train", "--out", "R") == [("file", "R")]
    assert values("train", "--budget", "1") == []


def test_completing_a_name_loads_no_torch() -> None:
    code = (
        "import os, sys; os.environ |= {'_BITFOLD_COMPLETE': 'bash_complete',"
        "'COMP_WORDS': 'bitfold train --method b', 'COMP_CWORD': '3'}\n"
        "from bitfold.cli.entry import main\n"
        "try: main([])\n"
        "finally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == ("plain,binary-code\n", "")


def test_known_names_are_those_of_the_registry() -> None:
    assert set(BUILT_IN) <= set(known_names())
    assert set(known_names()) <= set(methods())


def test_the_help_begins_with_what_a_first_call_needs() -> None:
    said = bitfold("train", "--help").out
    common = said.index(f"{COMMON}:")
    places = [said.index(f"  --{name} ") for name in ("label", "fields", "method", "budget", "out")]
    assert places == sorted(places)
    assert common < places[0]
    assert places[-1] < said.index("\nOptions:")
    assert f"{COMMON}:" not in bitfold("methods", "--help").out
