"""The tokenizer of the embedded model: byte-level BPE, trained until every word of the corpus is one token.

Byte level, so that any text at all can be encoded and comes back unchanged; no unknown token is needed.
"""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from shortlm.embedded.corpus import documents

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
LARGEST_VOCABULARY = 1024


def train_tokenizer(seed: int, count: int = 4000, longest: int = 512) -> PreTrainedTokenizerFast:
    """Tokenizer trained on the first `count` documents of `seed`; `longest` is the model's window in tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=LARGEST_VOCABULARY,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(islice(documents(seed), count), trainer)
    bpe.post_processor = _bos_first(bpe.encode(BOS).ids[0])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=longest,
        clean_up_tokenization_spaces=False,
    )


def _bos_first(bos_id: int) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS}:1 $B:1", special_tokens=[(BOS, bos_id)]
    )


def save(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the tokenizer files under the class name that transformers 4 knows too."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(config, indent=2) + "\n")
