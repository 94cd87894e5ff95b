#!/usr/bin/env bash
# For a machine with a GPU: runs the tests that use CuPy's arrays, and compares a training step with PyTorch's.
#
#   PYTHON=python3 benchmarks/gpu.sh
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD
python=${PYTHON:-python3}

"$python" -c 'import cupy; p = cupy.cuda.runtime.getDeviceProperties(0); print(p["name"].decode(), "CuPy", cupy.__version__)'
"$python" -m pytest -o addopts= -rfE -k "cupy or cuda or gpu" tests
"$python" benchmarks/step.py --backend cupy
