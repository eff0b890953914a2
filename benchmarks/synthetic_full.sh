#!/usr/bin/env bash
# Trains the faithful config on the `full` synthetic rooms, in float32 (exact) and in bfloat16 (fast), one after the other;
# evaluates both on rooms they have never seen and plots both curves.
#   benchmarks/synthetic_full.sh [STEPS] [DATA] [RESULTS]
# The learning rate falls to a fifth in the middle. Needs a GPU to end today, and matplotlib for the curves. PYTHON names
# the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
steps=${1:-2000} data=${2:-data/synthetic} results=${3:-benchmarks/results/synthetic_full}
python=${PYTHON:-python3}
"$python" -m dataset.synthetic full --out "$data"
models="$data/model"
common=(data_root="$data" output_root="$models" cache_root="$data/cache")
for mode in exact fast; do
    [ $mode = exact ] && precision=fp32 || precision=bf16
    "$python" run_training.py --cfg configs/cra/train_cra_synthetic.yaml "${common[@]}" name=$mode precision=$precision \
        train_set_list="$data/train.txt" val_set_list="$data/val.txt" total_step="$steps" \
        lr_cfg.decay_step=$((steps / 2)) val_interval=$((steps / 5)) save_interval=$((steps / 5))
    "$python" run_evaluation.py --cfg configs/cra/test_cra_synthetic.yaml "${common[@]}" name=test_$mode renderer=$mode \
        val_set_list="$data/test.txt" --model-path "$models/$mode/model.pth"
    mkdir -p "$results/$mode"
    cp "$models/test_$mode"/results.{json,md} "$results/$mode"
done
"$python" -m benchmarks.plot_curve "$results/curve.png" "$models/exact/logs" "$models/fast/logs"
