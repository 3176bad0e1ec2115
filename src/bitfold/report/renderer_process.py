"""Draws charts in a process of its own: a line of JSON in, a picture out.

The chart library runs a JavaScript engine, which ends its whole process when it has no memory or
meets what it did not expect. Here that costs one chart. Run as a file, by `renderer.py`.
"""

import json
import os
import sys


def main() -> None:
    """Answer requests until there are none."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the library prints is no answer
    import vl_convert

    for line in sys.stdin.buffer:
        request = json.loads(line)
        try:
            if request["kind"] == "svg":
                made = vl_convert.vegalite_to_svg(request["spec"], allowed_base_urls=[]).encode()
            else:
                made = vl_convert.vegalite_to_png(request["spec"], scale=2, allowed_base_urls=[])
            head = f"ok {len(made)}\n".encode()
        except Exception as error:
            made = str(error).encode("utf-8", "replace")[:2000]
            head = f"no {len(made)}\n".encode()
        answers.write(head + made)
        answers.flush()


if __name__ == "__main__":
    main()
