#!/usr/bin/env bash
# Multi30k German to English: trains the recipe, and scores its translations of test_2016_flickr.
#
#   benchmarks/multi30k.sh DATA [OUT]
#
# DATA holds train, val and test_2016_flickr with the endings .lc.norm.tok.de and .lc.norm.tok.en; where they are from, and
# under which conditions, is said in examples/recipes/multi30k-de-en.toml; and test_2016_flickr.en, the same untokenised.
# Needs the extra `peers` for the detokenised score.
set -euo pipefail
data=${1:?usage: benchmarks/multi30k.sh DATA [OUT]}
out=${2:-runs/multi30k-de-en}

tensorlib train --out "$out" --config "$(dirname "$0")/../examples/recipes/multi30k-de-en.toml" \
    --train-source "$data/train.lc.norm.tok.de" --train-target "$data/train.lc.norm.tok.en" \
    --valid-source "$data/val.lc.norm.tok.de" --valid-target "$data/val.lc.norm.tok.en"

# The text is tokenised already: BLEU takes the words as they are. Greedy first, as the published figure, then a beam.
for beam in 1 4; do
    tensorlib evaluate --run "$out" --tokenize none --beam "$beam" --output "$out/test.beam-$beam.en" \
        --source "$data/test_2016_flickr.lc.norm.tok.de" --reference "$data/test_2016_flickr.lc.norm.tok.en"
    python "$(dirname "$0")/detokenised.py" "$out/test.beam-$beam.en" "$data/test_2016_flickr.en" en
done
