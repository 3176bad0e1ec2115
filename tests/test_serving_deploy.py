"""The image and its service, as far as they can be judged without building them."""

import re
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from bitfold.cli.entry import COMMANDS
from bitfold.cli.serving import serve

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile: word and arguments, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(word.upper(), rest) for word, _, rest in (line.partition(" ") for line in lines)]


KNOWN = {
    "ARG", "FROM", "ENV", "WORKDIR", "RUN", "COPY", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK",
    "ENTRYPOINT", "CMD",
}  # fmt: skip


def last_stage() -> list[tuple[str, str]]:
    found = instructions()
    return found[max(place for place, (word, _) in enumerate(found) if word == "FROM") :]


def service() -> dict[str, Any]:
    found = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert list(found["services"]) == ["model"]
    return found["services"]["model"]


def json_words(text: str) -> list[str]:
    words = yaml.safe_load(text)
    assert isinstance(words, list)
    return words


def test_every_instruction_is_known_and_what_is_copied_is_there() -> None:
    found = instructions()
    assert {word for word, _ in found} <= KNOWN
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for word, rest in found:
        if word != "COPY" or "--from" in rest:
            continue
        for name in rest.split()[:-1]:
            assert (ROOT / name).exists(), name
            assert f"!{name}" in ignored, name


def test_what_serves_is_not_root_and_the_cache_is_warm_for_it() -> None:
    words = [word for word, _ in last_stage()]
    texts = dict(last_stage())
    assert texts["USER"] == "bitfold"
    warm = next(i for i, (_, text) in enumerate(last_stage()) if "bitfold warm" in text)
    assert words.index("USER") < warm < words.index("ENTRYPOINT")
    assert "NUMBA_CACHE_DIR=/var/cache/bitfold" in texts["ENV"]
    assert texts["STOPSIGNAL"] == "SIGTERM"


def test_the_image_is_alive_when_a_model_is_ready() -> None:
    texts = dict(last_stage())
    assert "/ready" in texts["HEALTHCHECK"]
    port = texts["EXPOSE"]
    assert f":{port}/" in texts["HEALTHCHECK"]
    check = json_words(texts["HEALTHCHECK"].partition("CMD ")[2])
    compile(check[check.index("-c") + 1], "healthcheck", "exec")
    assert json_words(texts["CMD"])[-1] == port


def parsed(words: list[str]) -> dict[str, Any]:
    return serve.make_context("serve", words).params


@pytest.mark.parametrize("where", ["image", "compose"])
def test_the_command_takes_what_it_is_given(where: str) -> None:
    texts = dict(last_stage())
    assert json_words(texts["ENTRYPOINT"]) == ["bitfold", "serve"]
    assert "serve" in COMMANDS
    words = json_words(texts["CMD"]) if where == "image" else service()["command"]
    given = parsed(words)
    assert given["host"] == "0.0.0.0"
    assert Path(given["run"]) == Path("/srv/bitfold/run")
    with pytest.raises(click.UsageError):
        parsed([*words, "--no-such-option"])


def test_the_service_may_do_little() -> None:
    model = service()
    assert model["read_only"] is True
    assert model["cap_drop"] == ["ALL"]
    assert model["security_opt"] == ["no-new-privileges:true"]
    assert all(str(each).startswith("127.0.0.1:") for each in model["ports"])
    assert model["ulimits"]["nofile"] >= 10_000 + 384
    build = model["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()
    assert "run" in build["additional_contexts"]


def test_the_extras_have_what_the_image_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    install = next(text for word, text in instructions() if "[serve" in text and word == "RUN")
    for name in re.findall(r"\.\[([\w,]+)\]", install)[0].split(","):
        assert name in extras
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0].lower() for line in lines}
    for wanted in extras["serve"]:
        name = re.split(r"[<>=;\[ ]", wanted)[0]
        assert {name, name.replace("-", "_")} & pinned, name
    assert "bitfold[serve]" in extras["all"]
