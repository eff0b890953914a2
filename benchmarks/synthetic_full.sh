#!/usr/bin/env bash
# Trains the faithful config on the `full` synthetic rooms, evaluates it on rooms it has never seen and plots the curve.
#   benchmarks/synthetic_full.sh [STEPS] [DATA] [RESULTS]
# Needs a GPU to end today, and matplotlib for the curve. PYTHON names the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
steps=${1:-2000} data=${2:-data/synthetic} results=${3:-benchmarks/results/synthetic_full}
python=${PYTHON:-python3}
"$python" -m dataset.synthetic full --out "$data"
common=(data_root="$data" output_root="$data/model")
"$python" run_training.py --cfg configs/cra/train_cra_synthetic.yaml "${common[@]}" train_set_list="$data/train.txt" \
    val_set_list="$data/val.txt" total_step="$steps" val_interval=1000 save_interval=500
"$python" run_evaluation.py --cfg configs/cra/test_cra_synthetic.yaml "${common[@]}" val_set_list="$data/test.txt" \
    --model-path "$data/model/train_cra_synthetic/model_best.pth"
mkdir -p "$results"
cp "$data"/model/test_cra_synthetic/results.{json,md} "$results"
"$python" -m benchmarks.plot_curve "$results/curve.png" "$data/model/train_cra_synthetic/logs"
