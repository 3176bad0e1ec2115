"""Several processes train one model: the same weights as one process on the same batches.

Starting processes takes seconds, training a tiny model does not: so two processes are started
once, and train every configuration, one after the other.
"""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bitfold.cli.entry import cli
from bitfold.config import to_json
from bitfold.data.prepare import prepare
from bitfold.errors import BitfoldError
from bitfold.files import read_tensors
from bitfold.nets.building import NETWORKS, build_network
from bitfold.training import train
from bitfold.training.processes import agreed, place_of_process
from click_log import DATA, TINY, columns, write

SCRIPT = """
import json, sys
from bitfold.config import from_json
from bitfold.training import TrainConfig, train
for name, log, words, out in json.loads(open(sys.argv[1]).read()):
    train([log], None, from_json(TrainConfig, words), out)
"""
WORDS = replace(TINY, batch_size=64, epochs=2, checkpoint_steps=5, log_steps=4, patience=1)
EXACT = replace(WORDS, optimizer="sgd", embedding_optimizer="sgd", lr=0.1, embedding_decay=1e-4)


def environment(rank: int, port: int, world: int = 2) -> dict[str, str]:
    """What torchrun puts in a process's environment."""
    own = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": world,
        "LOCAL_WORLD_SIZE": world,
        "GROUP_RANK": 0,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": 1,
    }
    return os.environ | {name: str(value) for name, value in own.items()}


def both(*command: object, cwd: Path | None = None) -> list[subprocess.Popen[str]]:
    """The same command in two processes, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            env=environment(rank, port),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=cwd,
        )
        for rank in range(2)
    ]


def ends(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each; a process that hangs fails the test."""
    try:
        told = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, *texts) for p, texts in zip(processes, told, strict=True)]


LOGS = {
    "plain": replace(DATA, numeric=()),
    "numeric": DATA,
    "bags": replace(DATA, fields=("user", "tags"), multi={"tags": "|"}, numeric=()),
    "weighted": replace(DATA, weight="weight"),
}
CASES = {
    **{f"{network} {log}": (log, {"network": network}) for network in NETWORKS for log in LOGS},
    "defaults of options": ("plain", {"optimizer": "adam", "embedding_optimizer": "lazy-adam"}),
    "one optimizer": ("numeric", {"embedding_optimizer": "same"}),
    "full table": ("plain", {"method": "full", "budget": None}),
    "binary codes": ("numeric", {"method": "binary-code", "budget": "3x"}),
    "learned fusion": (
        "bags",
        {"method": "binary-code", "budget": "3x", "set": {"fusion": "weighted"}},
    ),
    "low precision": (
        "numeric",
        {"method": "full", "budget": None, "set": {"bits": "8", "low_precision": "true"}},
    ),
    "max of bags": ("bags", {"bags": "max"}),
    "parts of DeepFM": ("plain", {"network_set": {"fm": "false", "linear": "false"}}),
    "no hidden layers": (
        "numeric",
        {"network": "dcnv2", "hidden": (), "network_set": {"rank": "2"}},
    ),
    "embedding sets": ("bags", {"embedding_sets": 2}),
    "embedding sets, a cross network": (
        "numeric",
        {"network": "dcnv2", "embedding_sets": 3, "hidden": (8, 4), "method": "binary-code"},
    ),
    "stops early": ("numeric", {"epochs": 9, "lr": 2.0, "embedding_lr": 0.2}),
}  # fmt: skip


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    raw = write(folder / "clicks.csv", columns(701))
    return {name: prepare([raw], folder / name, words).path for name, words in LOGS.items()}


@pytest.fixture(scope="module")
def trained(logs, tmp_path_factory):
    """The runs of two processes, and those of one whose batches are twice as large."""
    folder = tmp_path_factory.mktemp("runs")
    jobs = []
    for name, (log, words) in CASES.items():
        said = to_json(replace(EXACT, **words))
        jobs.append((name, str(logs[log]), said, str(folder / "two" / name)))
    (folder / "jobs.json").write_text(json.dumps(jobs))
    (folder / "script.py").write_text(SCRIPT)
    done = ends(both(folder / "script.py", folder / "jobs.json"))
    assert [code for code, *_ in done] == [0, 0], done
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_what_one_trains(logs, trained, case):
    log, words = CASES[case]
    config = replace(EXACT, **words)
    train([logs[log]], None, replace(config, batch_size=2 * config.batch_size), trained / case)
    one, two = (
        read_tensors(run / "weights.safetensors")[0]
        for run in (trained / case, trained / "two" / case)
    )
    assert one.keys() == two.keys()
    adaptive = 100 if config.optimizer == "adam" else 1  # it divides by roots of tiny squares
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4 * adaptive, atol=2e-6 * adaptive)
    figures = [
        json.loads((run / "metrics.json").read_text())
        for run in (trained / case, trained / "two" / case)
    ]
    for name in ("epochs", "best_epoch", "rows", "bytes"):
        assert figures[0][name] == figures[1][name]
    assert figures[1]["auc"] == pytest.approx(figures[0]["auc"], abs=2e-3)
    assert figures[1]["logloss"] == pytest.approx(figures[0]["logloss"], rel=1e-3)
    if case == "stops early":
        assert figures[0]["epochs"] < 9
    steps, losses = lines(trained / case)
    assert steps == lines(trained / "two" / case)[0]
    assert lines(trained / "two" / case)[1] == pytest.approx(losses, rel=2e-3)


def lines(run: Path) -> tuple[list[list[str]], list[float]]:
    """The steps, epochs and rows of a training log's lines, and their losses."""
    cells = [
        line.split(",") for line in (run / "logs" / "training.csv").read_text().splitlines()[1:]
    ]
    return [line[:3] for line in cells], [float(line[4]) for line in cells]


OPTIONS = [(name, {}) for name in NETWORKS] + [
    *(("deepfm", {part: False}) for part in ("linear", "fm", "deep")),
    ("deepfm", {"linear": False, "deep": False}),
    ("dcnv2", {"layers": 0}),
    ("dcnv2", {"hidden": (), "rank": 2}),
    ("dlrm", {"hidden": (), "bottom": ()}),
]


@pytest.mark.parametrize("numeric", [0, 2])
@pytest.mark.parametrize("sets", [1, 3])
@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_every_parameter_of_a_network_gets_a_gradient(name, options, sets, numeric):
    # Processes that train together wait for the gradient of each.
    network = build_network(name, 3, 4, numeric, sets=sets, **options)
    vectors = torch.randn(5, sets * 3, 4, requires_grad=True)
    network(vectors, torch.randn(5, numeric)).sum().backward()
    assert vectors.grad is not None
    assert [key for key, weight in network.named_parameters() if weight.grad is None] == []


def test_weights_of_a_network_without_numbers_are_read_as_before():
    network = build_network("deepfm", 3, 4)
    assert network.state_dict()["numeric.directions"].shape == (0, 4)


def test_the_place_that_the_environment_says(monkeypatch):
    assert place_of_process() is None
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    found = place_of_process()
    assert (found.world, found.local, found.rank, found.nodes) == (4, 2, 1, 2)
    assert agreed(1) == agreed(4) == 4
    with pytest.raises(BitfoldError, match="another number of processes"):
        agreed(2)
    for wrong in ("0", "many", "3"):
        monkeypatch.setenv("WORLD_SIZE", wrong)
        with pytest.raises(BitfoldError, match="makes no sense"):
            place_of_process()


FAILING = """
import sys
from bitfold.cli.entry import main
from bitfold.errors import BitfoldError
from bitfold.training.loop import Trainer
from bitfold.training.processes import place_of_process
step, how = Trainer._step, sys.argv[1]
def failing(self, batch):
    if self.position.step == 3 and str(place_of_process().rank) in how:
        if "error" in how:
            raise BitfoldError("the shard is broken", got="nothing")
        if "fault" in how:
            raise ZeroDivisionError("a fault of ours")
        if "stop" in how:
            raise KeyboardInterrupt
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch)
Trainer._step = failing
main(sys.argv[2:])
"""
LINE = ("--epochs", 3, "--batch-size", 64, "--width", 4, "--hidden", 8, "--budget", "2x")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("how", ["error", "fault", "stop", "kill"])
def test_what_ends_one_process_ends_all_and_is_told_once(logs, tmp_path, how, rank):
    (tmp_path / "script.py").write_text(FAILING)
    out = tmp_path / "run"
    command = ("train", logs["plain"], "--out", out, *LINE)
    done = ends(both(tmp_path / "script.py", f"{how} {rank}", *command))
    errors = "".join(err for *_, err in done)
    assert all(code != 0 for code, *_ in done)
    if how == "error":
        assert [code for code, *_ in done] == [2, 2], errors
        assert errors.count("bitfold: ") == errors.count("the shard is broken") == 1
        assert not out.exists()
    elif how == "fault":
        assert errors.count("ZeroDivisionError: a fault of ours") == 1
        assert errors.count("bitfold: ") == 0
    elif how == "stop":
        assert errors.count("bitfold: ") == 1
        assert "Traceback" not in errors
    else:
        assert errors.count("bitfold: ") == (1 if rank == 1 else 0)
        assert "Traceback" not in errors


def command(*args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *map(str, args)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
        timeout=200,
        cwd=cwd,
    )


@pytest.mark.parametrize(("rank", "tidied"), [(0, True), (1, False)])
def test_of_several_processes_the_first_looks_for_what_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int, tidied: bool
) -> None:
    """The others may look while it puts the folder in order, and find anything."""
    for name, value in environment(rank, 1).items():
        monkeypatch.setenv(name, value)
    left = tmp_path / ".run.bitfold" / "making"
    left.mkdir(parents=True)
    met = []
    monkeypatch.setattr("bitfold.training.train", lambda *args, **_: met.append(args) or 1 / 0)
    line = ["train", "--resume", "--out", str(tmp_path / "run")]
    for begun in (False, True):
        if begun:
            (tmp_path / "run").mkdir()
            (tmp_path / "run" / "config.json").write_text('{"kind": "bitfold run", "cut')
        if tidied:
            with pytest.raises(
                BitfoldError, match="config.json" if begun else "no log to train on"
            ):
                cli.main(line, standalone_mode=False)
        else:
            with pytest.raises(ZeroDivisionError):
                cli.main(line, standalone_mode=False)
    assert len(met) == (0 if tidied else 2)
    assert left.exists() != tidied


def test_devices_with_the_default_network_and_no_numbers(logs, tmp_path):
    done = command(
        "bitfold", "train", logs["plain"], "--out", tmp_path / "run", *LINE, "--devices", 2
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("epoch 3/3") == 1
    assert "distributed" not in done.stderr
    assert done.stdout.count("logloss") == 1
    assert (tmp_path / "run" / "manifest.json").is_file()


@pytest.mark.slow
def test_torchrun_without_devices_prepares_once_and_gives_the_run_of_two(tmp_path):
    raw = write(tmp_path / "clicks.csv", columns(701))
    words = ("train", raw, "--label", "rating>=4", "--fields", "user,item", *LINE)
    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m")
    done = command(*torchrun, "bitfold", *words, "--out", tmp_path / "torchrun")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("logloss") == 1
    again = command("bitfold", *words, "--out", tmp_path / "devices", "--devices", 2)
    assert again.returncode == 0, again.stderr
    one, two = (
        read_tensors(tmp_path / name / "weights.safetensors")[0] for name in ("torchrun", "devices")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    config = json.loads((tmp_path / "torchrun" / "config.json").read_text())
    assert config["train"]["devices"] == 2
    # A mistake is told once, and nothing is left.
    done = command(*torchrun, "bitfold", *words, "--out", tmp_path / "wrong", "--budget", 8)
    assert done.returncode != 0
    assert done.stderr.count("bitfold: ") == 1
    assert not (tmp_path / "wrong").exists()
    # What trains in one process says so.
    done = command(*torchrun, "bitfold", "compare", raw, "--out", tmp_path / "board")
    assert done.stderr.count("only `bitfold train` runs in several processes") == 1
    assert not (tmp_path / "board").exists()
