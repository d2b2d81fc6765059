#!/usr/bin/env bash
# What first-session adaptation gains with ViT-B/16 on the published protocols, on one GPU; see adapt.py and docs/adapt.md.
#   benchmarks/gpu_adapt.sh [--data DIR] [--weights FILE] [--out DIR] [--work DIR]    published settings, five seeds
#   benchmarks/gpu_adapt.sh --small [--out DIR] [--work DIR]                          the same steps on the embedded digits
# --data: folder of the datasets (`tosca datasets` says how each lies there). One that fails (or is not there) is said, the
#   others go on, and the script ends with 1. --weights: of vit_base_patch16_224.augreg_in21k, where there is no network. One JSON a dataset, in --out.
set -euo pipefail
cd "$(dirname "$0")/.."
data=data out=benchmarks/results/adapt work=build/adapt small="" weights=()
while [ $# -gt 0 ]; do
  case $1 in
    --data) data=$2; shift 2 ;;
    --weights) weights=(--weights "$2"); shift 2 ;;
    --out) out=$2; shift 2 ;;
    --work) work=$2; shift 2 ;;
    --small) small=1; shift ;;
    *) echo "error: unknown option $1" >&2; exit 2 ;;
  esac
done
python=python3
[ -x .venv/bin/python ] && python=.venv/bin/python
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 TOSCA_DATA=$data
mkdir -p "$out"

run() { # NAME INIT INCREMENT KIND: one dataset with the published settings of phase 1 (SGD, 20 epochs, batch 48)
  "$python" benchmarks/adapt.py "$1" --init-cls "$2" --increment "$3" --kind "$4" --backbone vit_base_patch16_224_in21k \
    "${weights[@]}" --bf16 --with-base --methods nmc simplecil ranpac fecam fsa-lda slca pool --out "$out/$1.json" --work "$work" ||
    { echo "failed, or not in $data: $1" >&2; failed=1; }
}
failed=0

if [ -n "$small" ]; then
  "$python" benchmarks/adapt.py digits --init-cls 4 --increment 3 --seeds 1993 --epochs 1 --with-base --methods nmc ranpac \
    --device cpu --out "$out/digits.json" --work "$work"
else
  run cifar100 10 10 adapter
  run cub 20 20 adapter
  run imageneta 20 20 ssf
  run imagenetr 20 20 ssf
  run omnibenchmark 30 30 vpt
  run vtab 10 10 ssf
fi
exit $failed
