#!/usr/bin/env bash
# Downloads what benchmarks/gpu.sh installs on a machine without network: wheels of the product and of pytest.
#   benchmarks/gpu_wheels.sh DIR [PYTHON_VERSION] [--torch]
# PYTHON_VERSION: of that machine, such as 3.12. --torch: PyTorch with CUDA as well (about 3 GB), where that machine has none.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:?where to put the wheels} version=${2:-3.12} torch=${3:-}
mkdir -p "$folder"
get() { python3 -m pip download --quiet --only-binary :all: --python-version "$version" --dest "$folder" "$@"; }
# timm asks for PyTorch, which that machine has of its own CUDA: it comes without its dependencies, and they by name.
mapfile -t needed < <(python3 - <<'PY'
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
print(*(one for one in project["dependencies"] if not one.startswith(("torch", "timm"))), sep="\n")
print(*(one for one in project["optional-dependencies"]["dev"] if one.startswith(("pytest>", "hypothesis"))), sep="\n")
print("huggingface_hub", "pyyaml", sep="\n")
PY
)
grep -v '^\(torch\|torchvision\|nvidia\|triton\)' constraints.txt >"$folder/constraints.txt"
get -c "$folder/constraints.txt" "${needed[@]}"
get -c "$folder/constraints.txt" --no-deps timm
if [ "$torch" = --torch ]; then get torch torchvision; fi
du -sh "$folder"
