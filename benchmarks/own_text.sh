#!/usr/bin/env bash
# Own text: trains on the first PAIRS lines of TRAIN.tsv with nothing but the names of the files, as someone new to the
# project would, and scores the translations of TEST.tsv.
#
#   benchmarks/own_text.sh TRAIN.tsv VALID.tsv TEST.tsv OUT [PAIRS]
#
# Two parallel files make one such file by `paste train.de train.en`. A run that was stopped is resumed.
set -euo pipefail
usage="usage: benchmarks/own_text.sh TRAIN.tsv VALID.tsv TEST.tsv OUT [PAIRS]"
train=${1:?$usage} valid=${2:?$usage} test=${3:?$usage} out=${4:?$usage} pairs=${5:-}

if [ -n "$pairs" ]; then
    mkdir -p "$(dirname "$out")"
    head -n "$pairs" "$train" > "$out.train.tsv"
    train=$out.train.tsv
fi
if [ -e "$out" ]; then
    tensorlib train --resume --out "$out"
else
    tensorlib train --out "$out" --train-tsv "$train" --valid-tsv "$valid"
fi
for beam in 1 4; do
    tensorlib evaluate --run "$out" --tsv "$test" --beam "$beam"
done
