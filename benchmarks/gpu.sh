#!/usr/bin/env bash
# Everything that is to be known of a GPU, in one run below 8 minutes, without network, into one JSON; see gpu.py.
#   benchmarks/gpu.sh [--wheels DIR] [--out FILE] [--device cuda|cpu] [--small]
# --wheels: install these into a fresh environment over python3's own PyTorch (benchmarks/gpu_wheels.sh downloads them);
#   otherwise .venv, or python3 as it is. The rest goes to gpu.py. --device cpu --small runs all of it where there is no GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
python=python3
[ -x .venv/bin/python ] && python=.venv/bin/python
if [ "${1:-}" = --wheels ]; then
  home=$(mktemp -d)
  trap 'rm -rf "$home"' EXIT
  python3 -m venv --system-site-packages "$home"
  "$home/bin/pip" install --quiet --no-index --find-links "$2" --no-deps "$2"/*.whl
  python=$home/bin/python
  shift 2
fi
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
"$python" benchmarks/gpu.py "$@"
