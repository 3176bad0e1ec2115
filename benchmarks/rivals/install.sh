#!/usr/bin/env bash
# Install the rivals, each into an environment of its own in .rivals/NAME. `make rivals` calls it.
#
#   benchmarks/rivals/install.sh           all of them
#   benchmarks/rivals/install.sh fuxictr   one
#
# NAME.txt pins every package. torch comes first and alone, as in the Makefile (TORCH, TORCH_INDEX);
# the rest is installed without its dependencies, so that none of them brings another torch. What is
# installed already is left alone; what cannot be installed is noted, with the reason, for the
# tables.
set -u
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
TORCH=${TORCH:-$(sed -n '/^torch==/p' constraints.txt)}
LOG=$(mktemp)
trap 'rm -f "$LOG"' EXIT

install() { # environment, pins
    local pip=("$1/bin/python" -m pip install -qq --disable-pip-version-check)
    [ -x "$1/bin/python" ] || "$PYTHON" -m venv "$1" || return
    "${pip[@]}" ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$TORCH" || return
    "${pip[@]}" --no-deps -r "$2"
}

pins=(benchmarks/rivals/*.txt)
if [ $# -gt 0 ]; then
    pins=("${@/#/benchmarks/rivals/}")
    pins=("${pins[@]/%/.txt}")
fi
for pin in "${pins[@]}"; do
    [ -f "$pin" ] || { echo "no such rival: $pin" >&2; exit 2; }
    name=$(basename "$pin" .txt)
    home=.rivals/$name
    stamp=$(echo "$TORCH" | cat - "$pin" | cksum)
    [ "$(cat "$home/.ready" 2>/dev/null)" = "$stamp" ] && continue
    echo "rivals: $name"
    mkdir -p "$home"
    rm -f "$home/.ready" "$home/.failed"
    if install "$home" "$pin" >"$LOG" 2>&1; then
        echo "$stamp" >"$home/.ready"
    else
        { grep -m 1 '^ERROR' "$LOG" || tail -n 1 "$LOG"; } |
            sed 's/^ERROR: //; s/ (from versions.*//' >"$home/.failed"
        echo "rivals: $name is not installed: $(cat "$home/.failed")" >&2
    fi
done
