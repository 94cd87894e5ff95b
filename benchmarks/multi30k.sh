#!/usr/bin/env bash
# Multi30k German to English (Elliott et al. 2016, task 1), tokenised and lower-cased: trains 10 epochs and scores
# greedy translations of test_2016_flickr.
#
#   benchmarks/multi30k.sh DATA [OUT]
#
# DATA holds train, val and test_2016_flickr with the endings .lc.norm.tok.de and .lc.norm.tok.en, as
# https://github.com/multi30k/dataset makes them. The text is under the conditions of Flickr30k (non-commercial research and
# education) and is no part of this repository.
set -euo pipefail
data=${1:?usage: benchmarks/multi30k.sh DATA [OUT]}
out=${2:-runs/multi30k-de-en}

tensorlib train --out "$out" \
    --train-source "$data/train.lc.norm.tok.de" --train-target "$data/train.lc.norm.tok.en" \
    --valid-source "$data/val.lc.norm.tok.de" --valid-target "$data/val.lc.norm.tok.en" \
    --epochs 10 --batch-sentences 128 --tokenizer.vocabulary 10000 \
    --model.layers 3 --model.width 256 --model.heads 8 --model.feed-forward 512 --model.dropout 0.1 \
    --model.norm pre --optim.learning-rate 5e-4 --optim.schedule cosine --optim.warmup 60 --optim.final-learning-rate 5e-5 \
    --optim.clip 1

# The text is tokenised already: BLEU takes the words as they are.
tensorlib evaluate --run "$out" --tokenize none --output "$out/test.en" \
    --source "$data/test_2016_flickr.lc.norm.tok.de" --reference "$data/test_2016_flickr.lc.norm.tok.en"
