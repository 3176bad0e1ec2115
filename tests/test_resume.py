"""Training that is killed goes on as if it had not been.

A process that has imported everything forks one child after another (importing takes seconds,
the training itself well under one), kills each at a random moment, and resumes until the run is
complete.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from bitfold.config import to_json
from bitfold.data.prepare import prepare
from bitfold.errors import BitfoldError
from bitfold.files import read_tensors, write_tensors
from bitfold.training import train
from click_log import DATA, TINY, columns, write
from interrupting import stopped_after

KILLS = 20
SERVER = r"""
import json, os, random, signal, sys, time
from pathlib import Path
import lightning_fabric, safetensors.torch, torch, torch.utils.tensorboard
from bitfold.config import from_json
from bitfold.training import TrainConfig, train

log, folder, words, wanted = sys.argv[1:]
words, rng = from_json(TrainConfig, json.loads(words)), random.Random(1)
mark = Path(folder, "writing")
torch.set_num_threads(1)

def half_then_whole(tensors, path, metadata=None):
    # A checkpoint's write, drawn out: a kill in it leaves a part of the file.
    mark.touch()
    save_file(tensors, path, metadata=metadata)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    time.sleep(0.005)
    path.write_bytes(whole)
    time.sleep(0.005)
    mark.unlink()

save_file = safetensors.torch.save_file
safetensors.torch.save_file = half_then_whole

def start(out):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            train([log], None, words, out, resume=True)
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid

def ended(pid):
    done, status = os.waitpid(pid, os.WNOHANG)
    assert status == 0, status
    return done == pid

def kill_somewhere(pid, life):
    # True if it was killed, False if it ended first.
    moment = time.monotonic() + rng.uniform(0, life)
    in_a_write = rng.random() < 0.5
    while time.monotonic() < moment or (in_a_write and not mark.exists()):
        if ended(pid):
            return False
        time.sleep(0.0002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True

began = time.monotonic()
pid = start(folder + "/undisturbed")
while not ended(pid):
    time.sleep(0.001)
life = time.monotonic() - began
kills = inside = chains = 0
while kills < int(wanted):
    out = f"{folder}/chain-{chains}"
    chains += 1
    while True:
        pid = start(out)
        if kills < int(wanted):
            if not kill_somewhere(pid, life / 2):
                break
            kills += 1
            inside += mark.exists()
            mark.unlink(missing_ok=True)
        else:
            while not ended(pid):
                time.sleep(0.001)
            break
print(json.dumps({"kills": kills, "inside": inside, "chains": chains, "life": life}))
"""


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    return prepare([write(folder / "clicks.csv", columns(4000))], folder / "log", DATA).path


def results(run):
    metrics = json.loads((run / "metrics.json").read_text())
    timeless = ("auc", "logloss", "gauc", "epochs", "best_epoch", "training_bytes")
    lines = (run / "logs" / "training.csv").read_text().splitlines()
    steps = [line.split(",")[:3] for line in lines]
    return {name: metrics[name] for name in timeless}, steps


def test_killed_at_twenty_moments_it_ends_with_the_same_weights(log, tmp_path):
    words = replace(TINY, dropout=0.2, checkpoint_steps=3, log_steps=2, epochs=4, patience=3)
    server = subprocess.run(
        [sys.executable, "-c", SERVER, log, tmp_path, json.dumps(to_json(words)), str(KILLS)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    told = json.loads(server.stdout.splitlines()[-1])
    assert told["kills"] == KILLS
    assert told["inside"] >= 3, "too few kills fell into a checkpoint's write"
    expected = read_tensors(tmp_path / "undisturbed" / "weights.safetensors")[0]
    for chain in range(told["chains"]):
        run = tmp_path / f"chain-{chain}"
        weights = read_tensors(run / "weights.safetensors")[0]
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], expected[name]) for name in expected)
        assert results(run) == results(tmp_path / "undisturbed")
        assert {file.name for file in run.iterdir()} == {
            file.name for file in (tmp_path / "undisturbed").iterdir()
        }


def interrupted(log, words, out, steps=17):
    with stopped_after(steps):
        train([log], None, words, out)
    return out


STEPS = replace(TINY, checkpoint_steps=5, epochs=3)


def test_a_raw_log_is_prepared_once(tmp_path):
    raw = write(tmp_path / "clicks.csv", columns())
    with stopped_after(9):
        train([raw], DATA, STEPS, tmp_path / "run")
    assert (tmp_path / "run" / "log").is_dir()
    raw.unlink()
    train(None, None, None, tmp_path / "run", resume=True)
    assert not (tmp_path / "run" / "log").exists()
    write(raw, columns())
    train([raw], DATA, STEPS, tmp_path / "whole")
    one, other = (
        read_tensors(tmp_path / name / "weights.safetensors")[0] for name in ("run", "whole")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_resume_needs_the_same_words(log, tmp_path):
    run = interrupted(log, STEPS, tmp_path / "run")
    with pytest.raises(BitfoldError, match="another lr"):
        train([log], None, replace(STEPS, lr=0.5), run, resume=True)
    with pytest.raises(BitfoldError, match="--resume to go on"):
        train([log], None, STEPS, run)
    # Words that change no weight may differ.
    assert train([log], None, replace(STEPS, log_steps=7), run, resume=True).epochs == 3


def test_resume_notices_another_prepared_log(log, tmp_path):
    folder = tmp_path / "log"
    shutil.copytree(log, folder)
    run = interrupted(folder, STEPS, tmp_path / "run")
    shutil.rmtree(folder)
    prepare([write(tmp_path / "clicks.csv", columns(4000, seed=5))], folder, DATA)
    with pytest.raises(BitfoldError, match="not the one that this training began with"):
        train([folder], None, STEPS, run, resume=True)
    shutil.rmtree(folder)
    shutil.copytree(log, folder)
    assert train([folder], None, STEPS, run, resume=True).epochs == 3


def test_a_finished_run_is_not_trained_again(log, tmp_path):
    run = train([log], None, STEPS, tmp_path / "run")
    manifest = (run.path / "manifest.json").stat().st_mtime_ns
    again = train([log], None, STEPS, run.path, resume=True)
    assert again.metrics == run.metrics
    assert train(None, None, None, run.path, resume=True).metrics == run.metrics
    assert (run.path / "manifest.json").stat().st_mtime_ns == manifest


def test_nothing_to_resume(log, tmp_path):
    with pytest.raises(BitfoldError, match="no log to train on"):
        train(None, None, None, tmp_path / "run", resume=True)
    # With the words, resume begins at the beginning.
    assert train([log], None, STEPS, tmp_path / "run", resume=True).epochs == 3


def test_a_damaged_checkpoint_is_named(log, tmp_path):
    run = interrupted(log, STEPS, tmp_path / "run")
    state = run / "checkpoint" / "state.safetensors"
    whole = state.read_bytes()
    state.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BitfoldError, match=r"state\.safetensors is damaged"):
        train([log], None, STEPS, run, resume=True)
    tensors, notes = read_tensors(_write(state, whole))
    write_tensors(state, tensors, notes | {"format": "99"})
    with pytest.raises(BitfoldError, match="another format"):
        train([log], None, STEPS, run, resume=True)
    write_tensors(state, tensors | {"model.network.bias": torch.ones(1)}, notes)
    with pytest.raises(BitfoldError, match="not what was saved"):
        train([log], None, STEPS, run, resume=True)
    del tensors["model.network.bias"], notes["digest"]
    write_tensors(state, tensors, notes, seal=True)
    with pytest.raises(BitfoldError, match="another model"):
        train([log], None, STEPS, run, resume=True)


def _write(path, data):
    path.write_bytes(data)
    return path


def test_an_error_after_a_checkpoint_keeps_it(log, tmp_path, monkeypatch):
    # The disk fills up in the second epoch: what was reached stays, and can be resumed.
    save = safetensors.torch.save_file
    left = 4

    def save_until_full(*args, **kwargs):
        nonlocal left
        left -= 1
        if left < 0:
            raise safetensors.SafetensorError("No space left on device")
        save(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(safetensors.torch, "save_file", save_until_full)
        with pytest.raises(BitfoldError, match="cannot write"):
            train([log], None, STEPS, tmp_path / "run")
    train([log], None, STEPS, tmp_path / "run", resume=True)
    train([log], None, STEPS, tmp_path / "whole")
    one, other = (
        read_tensors(tmp_path / name / "weights.safetensors")[0] for name in ("run", "whole")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


PROCESS = """
import json, sys
from bitfold.config import from_json
from bitfold.training import TrainConfig, train
from bitfold.training.loop import Trainer
log, out, words, last = sys.argv[1:]
step = Trainer._step
def stopping(self, batch):
    if self.position.step == int(last):
        sys.exit(3)
    return step(self, batch)
Trainer._step = stopping
train([log], None, from_json(TrainConfig, json.loads(words)), out, resume=True)
"""


@pytest.mark.slow
def test_two_processes_train_together_and_resume(log, tmp_path):
    words = replace(STEPS, devices=2, dropout=0.2)
    script = tmp_path / "process.py"
    script.write_text(PROCESS)

    def train_both(out, last):
        command = ["torchrun", "--standalone", "--nproc-per-node", "2", script, log, out]
        command = [sys.executable, "-m", "torch.distributed.run", *command[1:]]
        return subprocess.run(
            [*command, json.dumps(to_json(words)), str(last)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stderr=subprocess.DEVNULL,
            check=False,
        ).returncode

    assert train_both(tmp_path / "whole", -1) == 0
    assert train_both(tmp_path / "stopped", 8) != 0
    assert train_both(tmp_path / "stopped", -1) == 0
    one, other = (
        read_tensors(tmp_path / name / "weights.safetensors")[0] for name in ("whole", "stopped")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    # Each saw its own share of the rows: the figures are those of the whole part.
    metrics = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    assert metrics["rows"]["train"] > 2000
    assert metrics["auc"] > 0.5
