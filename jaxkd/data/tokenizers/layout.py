"""The special tokens that a trained tokenizer adds to a text, as models trained with it read it."""

from typing import Any

from jaxkd.data.tokenizers.wordpiece import SPECIAL

# name -> what is made of a text, and of two; ":1" is segment 1
LAYOUTS = {
    "pair": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),  # encoders
    "source": ("$A [SEP]", "$A [SEP] $B:1 [SEP]:1"),  # what an encoder-decoder reads
    "prompt": ("[CLS] $A", "[CLS] $A $B:1"),  # what a decoder continues
}


def with_layout(fast: Any, layout: str) -> Any:
    """The tokenizer with the post-processor of a layout."""
    import tokenizers
    import transformers

    if layout == "pair" and isinstance(fast, transformers.BertTokenizer):
        return fast  # that is BERT's own
    single, pair = LAYOUTS[layout]
    special = {name: getattr(fast, name) for name in SPECIAL}
    backend = tokenizers.Tokenizer.from_str(fast.backend_tokenizer.to_str())
    used = [token for token in ("[CLS]", "[SEP]") if token in single]
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single=single,
        pair=pair,
        special_tokens=[(token, backend.token_to_id(token)) for token in used],
    )
    # No class of a family: transformers would put that family's own post-processor back.
    segments = ["token_type_ids"] * (layout == "pair")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_input_names=["input_ids", *segments, "attention_mask"],
        **special,
    )
