"""Kill a command at each of its file operations in turn, and see what the next one makes of it.

    python tests/killing.py FOLDER [--every N] [--only SCENARIO ...] [--signals KILL,INT]
    python tests/killing.py FOLDER --only stream --random 20

A process that has imported everything forks a child for each command. In the child every file
operation below its folder is counted (opening to write, renaming, removing, making folders,
flushing to the disk); at the wanted one the child is killed (SIGKILL), or gets Ctrl-C (SIGINT).
Afterwards:

- what stood at the output is there byte for byte, or the new output is, whole;
- the command again, `--resume` or `--force` leads to the output of an undisturbed run, and no
  message says that what bitfold made is not its own;
- nothing else is left in the folder.

Prints a line of JSON for each scenario: tries, and what fell.
"""

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import pkgutil
import random
import shlex
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.chmod")

READ = "--label rating>=4 --fields user,item"
SMALL = (
    "--width 2 --hidden 2 --epochs 2 --batch-size 64 --lr 0.01 --checkpoint-steps 2 --log-steps 2"
)
TRAIN = f"{SMALL} --method hash --budget 1KiB"
BOARD = f"{SMALL} --methods hash --budgets 1KiB,600B --seeds 1 --no-floors --no-diagnosis"
STREAM = (
    "--width 2 --hidden 2 --batch-size 16 --lr 0.01 --dropout 0.1 --checkpoint-steps 2 "
    "--method cafe --set every=3 --budget 1KiB --window 100r"
)
SYNTH = "synth --rows 300 --ids 40 --fields 2"


@dataclass(frozen=True)
class Scenario:
    """A command, what stands before it, and the ways to go on."""

    command: str
    before: tuple[str, ...] = ()
    on: tuple[str, ...] = ("--force",)  # words that lead to the end, one by one
    out: str = "out"
    stop: int = 0  # operations after which `command` itself is first stopped, to be resumed
    same: Callable[[Path], Any] = field(default=lambda out: whole(out))


def whole(out: Path) -> Any:
    """All bytes of a file or folder."""
    files = [out] if out.is_file() else sorted(file for file in out.rglob("*") if file.is_file())
    return [(str(file.relative_to(out)), digest(file)) for file in files] or None


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def synthetic(out: Path) -> Any:
    """A synthetic log and its report, but for the seconds that it took.

    Two names take two renames: as `prepare` does before it reads, the second is completed first.
    """
    from bitfold.outputs import settle

    settle(out)
    report = out.with_name(out.name + ".json")
    if not out.exists() or not report.exists():
        return None
    said = json.loads(report.read_text())
    del said["seconds"]
    return whole(out), said


def a_run(out: Path) -> Any:
    """The weights of a finished run."""
    from bitfold.runs.manifest import verify

    verify(out)
    return digest(out / "weights.safetensors")


def a_stream(out: Path) -> Any:
    """The weights of a finished stream, and its figures but for those that the clock decides."""
    (course,) = json.loads((out / "stream.json").read_text())["courses"]
    for line in course["lines"]:
        del line["rows_per_second"], line["scoring_seconds"]
    return a_run(out), course


def board(out: Path) -> Any:
    """The figures of a comparison."""
    rows = json.loads((out / "results.json").read_text())["results"]
    return [(row["budget"], row["seed"], row["auc"], row["bytes"]) for row in rows]


RAW = f"prepare rows.csv {READ} --out log"
RUN = f"train log {TRAIN} --out out"
COMPARED = f"compare log {BOARD} --out out"
BOTH = ("--resume", "--force")
SCENARIOS = {
    "prepare": Scenario(f"prepare rows.csv {READ} --out out"),
    "prepare --force": Scenario(
        f"prepare rows.csv {READ} --out out --force", (f"prepare rows.csv {READ},age --out out",)
    ),
    "synth": Scenario(f"{SYNTH} --out out.csv", out="out.csv", same=synthetic),
    "synth --force": Scenario(
        f"{SYNTH} --out out.csv --force",
        (f"{SYNTH} --seed 9 --out out.csv",),
        out="out.csv",
        same=synthetic,
    ),
    "synth shards --force": Scenario(
        f"{SYNTH} --out out --force", (f"{SYNTH} --seed 9 --out out",), same=synthetic
    ),
    "train": Scenario(RUN, (RAW,), BOTH, same=a_run),
    "train raw": Scenario(f"train rows.csv {READ} {TRAIN} --out out", (), BOTH, same=a_run),
    "train --force": Scenario(f"{RUN} --force", (RAW, f"{RUN} --seed 9"), BOTH, same=a_run),
    "train --resume": Scenario(f"{RUN} --resume", (RAW,), BOTH, stop=30, same=a_run),
    "train --force --resume": Scenario(
        f"{RUN} --resume", (RAW, f"{RUN} --seed 9"), BOTH, stop=30, same=a_run
    ),
    "compare": Scenario(COMPARED, (RAW,), BOTH, same=board),
    "compare raw": Scenario(f"compare rows.csv {READ} {BOARD} --out out", (), BOTH, same=board),
    "compare --force": Scenario(
        f"{COMPARED} --force", (RAW, f"{COMPARED} --seed 9"), BOTH, same=board
    ),
    "compare --resume": Scenario(f"{COMPARED} --resume", (RAW,), BOTH, stop=60, same=board),
    "stream": Scenario(f"stream rows.csv {READ} {STREAM} --out out", (), BOTH, same=a_stream),
    "stream --force": Scenario(
        f"stream rows.csv {READ} {STREAM} --out out --force",
        (f"stream rows.csv {READ} {STREAM} --seed 9 --out out",),
        BOTH,
        same=a_stream,
    ),
    "report": Scenario(
        "report board", (RAW, f"compare log {BOARD} --out board"), ("",), out="board/board.html"
    ),
    "predict": Scenario(
        "predict run rows.csv --out out.csv", (RAW, f"train log {TRAIN} --out run"), out="out.csv"
    ),
    "predict --force": Scenario(
        "predict run rows.csv --out out.csv --force",
        (
            RAW,
            f"train log {TRAIN} --out run",
            f"train log {TRAIN} --seed 9 --out other",
            "predict other rows.csv --out out.csv",
        ),
        out="out.csv",
    ),
}


def count(folder: Path, at: int | None, number: int, tally: Path) -> None:
    """In a child: count file operations below `folder`; at number `at` send ourselves a signal."""
    done = 0
    root = str(folder)

    def met() -> None:
        nonlocal done
        done += 1
        if done == at:
            os.kill(os.getpid(), number)
        if at is None:
            tally.write_text(str(done))

    def listen(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if not isinstance(flags, int) or not flags & WRITING:
                return
        elif event in EVENTS:
            path = args[0]
        else:
            return
        if isinstance(path, str | bytes | os.PathLike):
            path = os.fsdecode(path)
            if path == str(tally) or (path[0] == "/" and not path.startswith(root)):
                return
            if path.startswith(("/dev/", "/proc/")):
                return
            met()

    sys.addaudithook(listen)
    from bitfold.outputs import renames

    for module, name in ((os, "fsync"), (renames, "_rename")):
        real = getattr(module, name)

        def wrapped(*args: Any, real: Any = real) -> Any:
            met()
            return real(*args)

        setattr(module, name, wrapped)


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (negative: a signal's number), and what it said."""

    code: int
    err: str
    operations: int = 0


def run(
    command: str | list[str],
    folder: Path,
    at: int | None = None,
    number: int = 9,
    seconds: float | None = None,
) -> Ended:
    """One command line in a forked child, killed at an operation or after so many seconds."""
    words = shlex.split(command) if isinstance(command, str) else command
    log, tally = folder.with_name("said"), folder.with_name("tally")
    tally.write_text("0")
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            os.chdir(folder)
            said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1)
            os.dup2(said, 2)
            count(folder, at, number, tally)
            from bitfold.cli.entry import main

            main(words)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 70
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)  # of a child that has ended, too, until it is waited for
    _, status = os.waitpid(pid, 0)
    counted = int(tally.read_text() or 0)  # nothing, if it was killed while it wrote
    return Ended(os.waitstatus_to_exitcode(status), log.read_text(errors="replace"), counted)


def listing(folder: Path) -> list[str]:
    """All names below a folder, but for event files: a time and a process are in theirs."""
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if "tfevents" not in path.name
    )


class Killing:
    """One scenario, killed at operation after operation."""

    def __init__(self, name: str, base: Path) -> None:
        self.name = name
        self.scenario = SCENARIOS[name]
        self.base = base / name.replace(" ", "_")
        self.base.mkdir(parents=True)
        self.start = self.base / "start"
        self.fell: list[str] = []
        self.tries = 0
        sys.path.insert(0, str(HERE))
        from command import write_ratings

        # Everything happens in one folder, since a run knows the whole path of its log.
        self.start.mkdir()
        begun = self._fresh()
        write_ratings(begun / "rows.csv", rows=400)
        for command in self.scenario.before:
            self._must(run(command, begun), command)
        self._start_from(begun)
        # The output before, that of an undisturbed command, and all names there are then.
        self.old = self._same(self.start)
        plain = self.scenario.command.replace(" --resume", "")
        ends = self._fresh()
        if self.old is not None and "--force" not in plain and "report" not in plain:
            plain += " --force"
        self._must(run(plain, ends), plain)
        self.new, self.names = self._same(ends), listing(ends)
        if self.scenario.stop:
            stopped = self._fresh()
            run(plain, stopped, self.scenario.stop)
            self._start_from(stopped)
        self.operations = run(self.scenario.command, self._fresh()).operations

    def _must(self, ended: Ended, command: str) -> None:
        if ended.code:
            raise RuntimeError(f"{self.name}: {command}: {ended.code}\n{ended.err}")

    def _start_from(self, folder: Path) -> None:
        shutil.rmtree(self.start)
        shutil.copytree(folder, self.start, symlinks=True)

    def _fresh(self) -> Path:
        folder = self.base / "work" / "folder"
        shutil.rmtree(folder.parent, ignore_errors=True)
        shutil.copytree(self.start, folder, symlinks=True)
        return folder

    def _same(self, folder: Path) -> Any:
        try:
            return self.scenario.same(folder / self.scenario.out)
        except Exception:
            return None

    def at(self, operation: int, number: int) -> None:
        """Kill at one operation, and go on in each way."""
        for word in self.scenario.on:
            # Each way from a kill of its own: a copied folder is not the one that was left.
            folder = self._fresh()
            ended = run(self.scenario.command, folder, operation, number)
            self.tries += 1
            where = f"{signal.Signals(number).name} at {operation}, then {word or 'again'}"
            expected = -9 if number == signal.SIGKILL else 130
            if ended.code not in (expected, 0):
                self.fell.append(f"{where}: it ended with {ended.code}: {ended.err[-300:]}")
            now = self._same(folder)
            if self.old is not None and now not in (self.old, self.new):
                self.fell.append(f"{where}: neither the old output nor the new one is there")
            if ended.code == 130:
                self._last_line(ended, where)
            self._go_on(folder, word, where)

    def at_random(self, kills: int, seed: int) -> None:
        """Kill one command at random moments again and again, each time resumed; then let it end.

        Moments are drawn up to what is left of an undisturbed command's time.
        """
        draw, folder = random.Random(seed), self._fresh()
        began = time.monotonic()
        self._must(run(self.scenario.command, folder), "undisturbed")
        lasts, folder = time.monotonic() - began, self._fresh()
        words = self.scenario.command
        for _ in range(kills):
            seconds = draw.uniform(0.05, 0.6) * lasts
            ended = run(words, folder, seconds=seconds)
            self.tries += 1
            if ended.code not in (-9, 0):
                self.fell.append(f"after {seconds:.2f} s it ended with {ended.code}: {ended.err}")
            words = self.scenario.command + " --resume"
        self._must(run(words, folder), words)
        if self._same(folder) != self.new:
            self.fell.append(f"seed {seed}: another output than an undisturbed run's")
        if left := sorted(set(listing(folder)) ^ set(self.names)):
            self.fell.append(f"seed {seed}: left behind or missing: {left[:5]}")

    def _last_line(self, ended: Ended, where: str) -> None:
        if not ended.err.splitlines()[-1].startswith("bitfold "):
            self.fell.append(f"{where}: the last line is no command: {ended.err[-200:]}")

    def _go_on(self, folder: Path, word: str, where: str) -> None:
        words = [
            each
            for each in shlex.split(self.scenario.command)
            if each not in ("--force", "--resume")
        ]
        again = Ended(2, "--force")
        if word == self.scenario.on[0]:
            again = run(words, folder)
        if again.code not in (0, 2) or " is no " in again.err or "Traceback" in again.err:
            self.fell.append(f"{where}: the command again: {again.code}: {again.err[-300:]}")
        if again.code == 2 and not ("--force" in again.err or "--resume" in again.err):
            self.fell.append(f"{where}: the command again says no way on: {again.err[-300:]}")
        if again.code == 2 or self._same(folder) != self.new:
            ended = run([*words, *[word] * bool(word)], folder)
            if ended.code and not (word == "--resume" and "--force" in ended.err):
                self.fell.append(f"{where}: {ended.code}: {ended.err[-300:]}")
            if self._same(folder) != self.new:
                # Killed before it left anything to resume, --resume is about the old run.
                self._must(run([*words, "--force"], folder), "--force")
        if self._same(folder) != self.new:
            self.fell.append(f"{where}: another output than an undisturbed run's")
        left = sorted(set(listing(folder)) ^ set(self.names))
        if left:
            self.fell.append(f"{where}: left behind or missing: {left[:5]}")


def load_everything() -> None:
    """Import what the commands import, once, before there are children.

    But for Polars: a fork leaves its threads behind, and bitfold refuses to prepare then.
    """
    import bitfold

    for found in pkgutil.walk_packages(bitfold.__path__, "bitfold."):
        if not found.name.endswith(("__main__", ".compare")):
            importlib.import_module(found.name)
    for name in (
        *("pyarrow.parquet", "pyarrow.csv", "lightning_fabric"),
        *("torch.utils.tensorboard", "sklearn.metrics", "jinja2", "vl_convert", "gzip"),
    ):
        importlib.import_module(name)
    assert "polars" not in sys.modules


def main() -> int:
    """Run the scenarios; the exit code says whether anything fell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1, help="only each n-th operation")
    parser.add_argument("--first", type=int, default=1, help="the first operation")
    parser.add_argument("--only", nargs="*", default=list(SCENARIOS), help="scenarios")
    parser.add_argument("--signals", default="KILL,INT")
    parser.add_argument("--random", type=int, default=0, help="kills at random moments instead")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    words = parser.parse_args()
    import torch

    load_everything()
    torch.set_num_threads(1)
    fell = 0
    for name in words.only:
        killing = Killing(name, words.folder)
        if words.random:
            killing.at_random(words.random, words.seed)
            told = {"scenario": name, "tries": killing.tries, "fell": killing.fell}
            print(json.dumps(told), flush=True)
            fell += len(killing.fell)
            continue
        for each in words.signals.split(","):
            number = getattr(signal, f"SIG{each}")
            tries, failed = killing.tries, len(killing.fell)
            for operation in range(words.first, killing.operations + 1, words.every):
                killing.at(operation, number)
            told = {
                "scenario": name,
                "signal": each,
                "operations": killing.operations,
                "tries": killing.tries - tries,
                "fell": killing.fell[failed:],
            }
            print(json.dumps(told), flush=True)
            fell += len(told["fell"])
        shutil.rmtree(killing.base)
    return int(fell > 0)


if __name__ == "__main__":
    sys.exit(main())
