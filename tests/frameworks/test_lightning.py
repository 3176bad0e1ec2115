"""Lightning: folding in a `LightningModule`, checkpoints, two processes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from folded_models import EXAMPLES, moved, saved_and_loaded, weights

pytestmark = pytest.mark.filterwarnings("ignore")
NAME = "lightning_deepfm"
TWO = """
import pathlib, sys
import lightning, torch
from lightning_deepfm import DeepFM, loader
from ml1m import read

log, out = read(pathlib.Path(sys.argv[1]), 2048), pathlib.Path(sys.argv[2])
torch.manual_seed(0)
model = DeepFM(log.sizes, "10x")
trainer = lightning.Trainer(
    accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, logger=False,
    enable_progress_bar=False, enable_checkpointing=False, use_distributed_sampler=False,
)
trainer.fit(model, loader(log.train, 256))
torch.save(model.state_dict(), out / f"rank{trainer.global_rank}.pt")
"""


@pytest.fixture(autouse=True)
def _installed(needs: Any) -> None:
    needs("lightning")


def test_the_example(told: Any) -> None:
    assert told(NAME, "10x")["bytes"] * 10 <= told(NAME, "none")["bytes"]


def test_a_checkpoint_brings_the_folded_tables_back(example: Any, log: Any, tmp_path: Path) -> None:
    import lightning

    module = example(NAME)
    model = module.DeepFM(log.sizes, "10x")
    before = weights(model)
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, module.loader(log.train, 256, shuffle=True), module.loader(log.valid, 1024))
    assert moved(before, model) == set(before)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = module.DeepFM.load_from_checkpoint(tmp_path / "last.ckpt")
    from_folder = saved_and_loaded(model, lambda: module.DeepFM(log.sizes), tmp_path)
    with torch.no_grad():
        scored = [each.eval()(log.test.ids) for each in (model, again, from_folder)]
    assert torch.equal(scored[0], scored[1])
    assert torch.equal(scored[0], scored[2])


def test_two_processes_train_one_model(log_folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO)
    paths = [str(EXAMPLES), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, str(script), str(log_folder), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
