#!/usr/bin/env bash
# For a machine with a GPU: tests and measures on it in less than 7 minutes, and writes gpu.md and gpu.json into a folder.
#
#   benchmarks/gpu.sh [--all] [--only PART[,PART]] [--out DIR] [--data MULTI30K] [--rehearse]
#
# docs/performance.md says what the parts are. PYTHON=python3 chooses the interpreter.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export PYTHONPATH="${here%/*}:$here${PYTHONPATH:+:$PYTHONPATH}"
export TENSORLIB_KERNELS=${TENSORLIB_KERNELS-numpy}  # compiling those for the CPU would take longer than they run
exec "${PYTHON:-python3}" -m gpu "$@"
