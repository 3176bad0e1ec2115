"""The words of a configuration on the command line and in a file."""

import dataclasses
import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bitfold.cli.options import build, file_options, options, read_config
from bitfold.comparison.config import CompareConfig
from bitfold.config import option, to_json
from bitfold.data.config import DataConfig
from bitfold.data.synth.log import SynthConfig
from bitfold.errors import BitfoldError, UnknownName
from bitfold.runs.options import TrainConfig
from bitfold.settings import options_of, parse, said


@dataclasses.dataclass(frozen=True)
class Toy:
    size: int = option(4, help="A size.")
    rate: float = option(0.5, help="A rate.")
    names: tuple[str, ...] = option((), help="Names.")
    hidden: tuple[int, ...] = option((8, 4), help="Sizes.")
    set: dict[str, str] = option({}, help="Options.")  # noqa: RUF009
    fast: bool = option(False, help="Be fast.")
    shape: str = option("round", help="A shape.", choices=("round", "square"))
    where: str | None = option(None, help="A place.")


def toy(*args: str) -> Toy:
    """The configuration that the command line `args` says."""
    made: list[Toy] = []

    @click.command()
    @options(Toy)
    def command(config_file: str | None, **given: object) -> None:
        made.append(build(Toy, given, file_options(config_file, list(options_of(Toy)))))

    result = CliRunner().invoke(command, list(args), catch_exceptions=False, standalone_mode=False)
    assert result.exit_code == 0
    return made[0]


def test_defaults() -> None:
    assert toy() == Toy()


def test_every_kind_of_word() -> None:
    got = toy(
        *("--size", "1e3", "--rate", "1e-3", "--names", "a, b,c", "--hidden", "2,3", "--fast"),
        *("--set", "blocks=3", "--set", "k=a=b", "--shape", "square", "--where", "here"),
    )
    assert got == Toy(
        size=1000,
        rate=1e-3,
        names=("a", "b", "c"),
        hidden=(2, 3),
        set={"blocks": "3", "k": "a=b"},
        fast=True,
        shape="square",
        where="here",
    )


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "words.json"
    file.write_text(
        json.dumps(
            {"size": 7, "rate": 0.25, "fast": True, "set": {"a": 1, "b": "x"}, "names": ["u"]}
        )
    )
    got = toy("--config", str(file), "--size", "9", "--no-fast", "--set", "b=y")
    assert got == Toy(size=9, rate=0.25, names=("u",), set={"a": "1", "b": "y"}, fast=False)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--size", "big"), "--size cannot be read\n  got: 'big'\n  expected: a whole number"),
        (("--size", "1.5"), "whole number"),
        (("--rate", "x"), "--rate cannot be read"),
        (("--hidden", "8,x"), "--hidden cannot be read"),
        (("--set", "blocks"), "KEY=VALUE"),
        (("--set", "=3"), "KEY=VALUE"),
        (("--shape", "rond"), "did you mean 'round'"),
    ],
)
def test_wrong_values(args: tuple[str, ...], message: str) -> None:
    with pytest.raises(BitfoldError) as caught:
        toy(*args)
    assert message in str(caught.value)


@pytest.mark.parametrize("value", [True, "x", [1], None.__class__])
def test_wrong_json_values(value: object) -> None:
    with pytest.raises(BitfoldError, match="--size cannot be read"):
        parse(options_of(Toy)["size"], value)


def test_a_missing_word_is_named() -> None:
    @dataclasses.dataclass(frozen=True)
    class Needs:
        label: str = option(help="The label.")

    with pytest.raises(BitfoldError, match="--label is missing"):
        build(Needs, {}, {})
    assert build(Needs, {}, {"label": "y"}) == Needs("y")


def test_said_is_what_the_command_line_says() -> None:
    assert said(Toy, {"size": "3", "set": (), "where": None}) == {"size": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "cannot be read"), ("[1]", "but a list"), ('{"sise": 3}', "did you mean 'size'")],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "words.json"
    file.write_text(text)
    with pytest.raises(BitfoldError) as caught:
        read_config(str(file), list(options_of(Toy)))
    assert message in str(caught.value)


def test_a_missing_file() -> None:
    with pytest.raises(BitfoldError, match="does not exist"):
        read_config("nowhere.json", ["size"])


def test_sections_and_notes_of_a_saved_configuration(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    data, train = (
        DataConfig(label="y", fields=("a", "b")),
        TrainConfig(width=8, set={"blocks": "2"}),
    )
    file.write_text(
        json.dumps(
            {"kind": "x", "format": 1, "paths": [], "data": to_json(data), "train": to_json(train)}
        )
    )
    flat = read_config(str(file), [*options_of(DataConfig), *options_of(TrainConfig)])
    assert build(DataConfig, {}, flat) == data
    assert build(TrainConfig, {}, flat) == train


@pytest.mark.parametrize("kind", [DataConfig, TrainConfig, SynthConfig, CompareConfig])
def test_every_word_has_help_and_a_type_that_options_can_carry(kind: type) -> None:
    for name, found in options_of(kind).items():
        assert found.help.endswith((".", "'")), name
        assert found.pairs or found.listed or found.type in (int, float, str, bool), name


@pytest.mark.parametrize("kind", [DataConfig, TrainConfig, SynthConfig, CompareConfig])
def test_defaults_survive_json(kind: type) -> None:
    assert build(kind, {}, json.loads(json.dumps(to_json(kind())))) == kind()


def test_data_and_training_share_no_word() -> None:
    assert not options_of(DataConfig).keys() & options_of(TrainConfig).keys()
    assert not options_of(CompareConfig).keys() & (
        options_of(DataConfig).keys() | options_of(TrainConfig).keys()
    )


def test_unknown_choice_is_an_unknown_name() -> None:
    with pytest.raises(UnknownName, match="did you mean 'deepfm'"):
        build(TrainConfig, {"network": "deepmf"}, {})


def test_a_former_name_still_works_and_names_the_new_one(tmp_path: Path) -> None:
    from command import bitfold

    plan = ("plan", "--fields", "user=6040", "--budget", "10x", "--json")
    new = bitfold(*plan, "--method", "hash")
    for former in (("--embedding", "hash"), ("--embedding=hash",)):
        old = bitfold(*plan, *former)
        assert (old.code, old.out) == (0, new.out)
        assert old.err == "bitfold: --embedding is now called --method\n"
    file = tmp_path / "old.json"
    file.write_text('{"train": {"embedding": "hash"}}')
    assert bitfold(*plan, "--config", file).out == new.out
