#!/usr/bin/env bash
# transformers 5.23.0: T5Config(tie_word_embeddings=False), as the config.json of every T5 v1.1, FLAN-T5
# and mT5 says, has tie_word_embeddings True and scale_decoder_outputs False. The head is still one of
# its own in such a checkpoint, so that code which asks the config whether the head is tied, as for
# other families, gets the opposite; only the stored weights or scale_decoder_outputs say it.
# Seen: False gives (True, False); True gives (True, True). Exit status 1 if that changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
source "$place/venv/bin/activate"
pip install --quiet transformers==5.23.0
python - <<'PYTHON'
from transformers import T5Config

for said in (False, True):
    config = T5Config(tie_word_embeddings=said)
    seen = config.tie_word_embeddings, config.scale_decoder_outputs
    print(f"T5Config(tie_word_embeddings={said}): tie_word_embeddings, scale_decoder_outputs = {seen}")
    assert seen == (True, said), "changed"
PYTHON
