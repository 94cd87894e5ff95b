#!/usr/bin/env bash
# Multi30k: trains a recipe, examples/recipes/multi30k-RECIPE.toml, and scores its translations of test_2016_flickr.
#
#   benchmarks/multi30k.sh de-en|de-en-hour|en-de DATA [OUT]
#
# DATA holds train, val and test_2016_flickr with the endings .lc.norm.tok.de and .lc.norm.tok.en, and the raw text of
# test_2016_flickr with the endings .de and .en. examples/recipes/multi30k-*.toml name the source and the terms of use.
# A run that was stopped is resumed. Needs the extra `peers` for the detokenised score.
set -euo pipefail
usage="usage: benchmarks/multi30k.sh de-en|de-en-hour|en-de DATA [OUT]"
recipe=${1:?$usage}
data=${2:?$usage}
out=${3:-runs/multi30k-$recipe}
case $recipe in
    de-en | de-en-hour) source=de target=en ;;
    en-de) source=en target=de ;;
    *) echo "$usage; got $recipe" >&2; exit 2 ;;
esac
here=$(dirname "$0")

if [ -e "$out" ]; then
    tensorlib train --resume --out "$out"
else
    tensorlib train --out "$out" --config "$here/../examples/recipes/multi30k-$recipe.toml" \
        --train-source "$data/train.lc.norm.tok.$source" --train-target "$data/train.lc.norm.tok.$target" \
        --valid-source "$data/val.lc.norm.tok.$source" --valid-target "$data/val.lc.norm.tok.$target"
fi

# Decode as for the figures in each recipe; the published figures were reached greedily or with a beam of 5.
case $recipe in
    de-en) run=$out beams="1 4" penalty=0.6 ;;
    de-en-hour) run=$out beams="1 5" penalty=1 ;;
    en-de) tensorlib average "$out" --last 10; run=$out/average-10.safetensors beams="1 5" penalty=1 ;;
esac

# The text is already tokenised, so BLEU takes its words unchanged.
for beam in $beams; do
    tensorlib evaluate --run "$run" --tokenize none --beam "$beam" --length-penalty $penalty --output "$out/test.beam-$beam.$target" \
        --source "$data/test_2016_flickr.lc.norm.tok.$source" --reference "$data/test_2016_flickr.lc.norm.tok.$target"
    python "$here/detokenised.py" "$out/test.beam-$beam.$target" "$data/test_2016_flickr.$target" "$target"
done
