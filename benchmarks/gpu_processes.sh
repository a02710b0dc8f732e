#!/bin/bash
# Several GPUs of one machine, in under ten minutes: the marked tests, then time and memory by strategy.
#
#     benchmarks/gpu_processes.sh [GPUS]
#
# Needs two NVIDIA GPUs or more and an installed checkout (`pip install -e '.[train,dev]'`). Writes outputs/gpu-processes.log.
set -euo pipefail
cd "$(dirname "$0")/.."
gpus=${1:-$(nvidia-smi --list-gpus | wc -l)}
if [ "$gpus" -lt 2 ]; then
    echo "Two GPUs are needed, and there is $gpus." >&2
    exit 2
fi
mkdir -p outputs
{
    date
    nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv
    nvidia-smi topo -m
    timeout 240 python -m pytest -q -n 0 -m gpu tests/training/test_processes.py || echo "the marked tests failed: $?"
    config='{"model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 32000,
        "max_position_embeddings": 2048, "tie_word_embeddings": true}'
    timeout 330 python benchmarks/processes.py --processes "$gpus" --steps 12 --repeats 1 --config "$config" \
        --set model.dtype=bfloat16 training.per_device_train_batch_size=4 || echo "the table was cut short: $?"
} 2>&1 | tee outputs/gpu-processes.log
