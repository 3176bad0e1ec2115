"""Tries in a process of their own: it may crash or hang without ending the count.

Started by `__main__`; reads lines `KIND SEED`, answers a line of JSON for each.
"""

import json
import os
import sys
import tempfile
import traceback
from pathlib import Path


def main() -> None:
    """Answer until there are no more lines."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    from fuzz.kinds import KINDS, attempt

    made = Path(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="bitfold-fuzz-") as folder:
        for line in sys.stdin:
            name, seed = line.split()
            place = made / name
            if not place.is_dir():
                place.mkdir(parents=True)
                KINDS[name].make(place)
            told = ""
            try:
                outcome = attempt(name, int(seed), place, Path(folder) / "work")
            except Exception:
                outcome, told = "traceback", traceback.format_exc()[-2000:]
            print(json.dumps({"outcome": outcome, "told": told}), file=answers, flush=True)


if __name__ == "__main__":
    main()
