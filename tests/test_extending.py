"""docs/extending.md: every block runs as it stands, and its methods keep the contract."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from command import write_ratings

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TRIALS = sorted((ROOT / "tests" / "trials").glob("*.py"))
EXAMPLE = ROOT / "examples" / "new_method.py"


def run(folder: Path, *words: object) -> str:
    """What a Python module says in a folder, in a process of its own."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if "PYTEST" not in name}
        | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-6000:]}{done.stderr[-3000:]}"
    return done.stdout


def contract(folder: Path, *files: object) -> None:
    """Hold the methods of some files to the contract, in one process: it compiles once."""
    quick = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "bitfold.testing.plugin")
    said = run(folder, *quick, *(f"--plugin={file}" for file in files))
    assert re.search(r"\d{3,} passed", said), said[-300:]


def test_the_page_runs(tmp_path: Path) -> None:
    write_ratings(tmp_path / "ratings.csv", rows=3000, users=300, items=200)
    ran, held = [], ["sums.py"]
    for language, body in BLOCK.findall((ROOT / "docs" / "extending.md").read_text("utf-8")):
        if language == "python":
            name = body.splitlines()[0].removeprefix("# ")
            assert name.endswith(".py")
            (tmp_path / name).write_text(body)
            if "class " not in body:
                run(tmp_path, name)
            ran.append(name)
            continue
        assert language in ("bash", "{eval-rst}"), language
        for line in body.splitlines():
            command, *words = shlex.split(line)
            if command == "pytest":
                assert words[0] == "--plugin"
                held.append(words[1])
            else:
                assert command == "bitfold"
                run(tmp_path, "-m", command, *words)
            ran.append(command)
    contract(tmp_path, *held)
    assert len(ran) == 9


def test_methods_of_at_most_eighty_lines_keep_the_contract(tmp_path: Path) -> None:
    assert len(TRIALS) == 4
    for file in (EXAMPLE, *TRIALS):
        text = file.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 80
        assert set(re.findall(r"^(?:from|import) (bitfold\S*)", text, re.M)) == {
            "bitfold.extending"
        }
    contract(tmp_path, EXAMPLE, *TRIALS)


def test_the_example_trains_with_kernels(tmp_path: Path) -> None:
    write_ratings(tmp_path / "ratings.csv", rows=3000, users=300, items=200)
    words = ("--label", "rating>=4", "--fields", "user,item", "--split", "random:0.8,0.1,0.1")
    words += ("--method", "remainders", "--budget", "4x", "--width", "8", "--epochs", "1")
    words += ("--plugin", str(EXAMPLE), "--out", "R")
    run(tmp_path, "-m", "bitfold", "train", "ratings.csv", *words)
    (tmp_path / "look.py").write_text(
        "import sys, bitfold\n"
        "bitfold.load_plugin(sys.argv[1])\n"
        "run = bitfold.load('R')\n"
        "assert run.model.embeddings.embedder.by_kernels\n"
        "assert run.plan.bytes <= run.plan.budget\n"
    )
    run(tmp_path, "look.py", EXAMPLE)
