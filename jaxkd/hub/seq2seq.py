"""Marian and BART under HuggingFace's names."""

from collections.abc import Mapping
from typing import Any

from jaxkd.hub.family import Family, Head
from jaxkd.models import bart, marian
from jaxkd.models.activations import ACTIVATIONS
from jaxkd.models.config import Config

KEYS = {
    "vocabulary": "vocab_size",
    "layers": "decoder_layers",
    "encoder_layers": "encoder_layers",
    "width": "d_model",
    "heads": "decoder_attention_heads",
    "feed_forward": "decoder_ffn_dim",
    "activation": "activation_function",
    "max_length": "max_position_embeddings",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "init_std": "init_std",
    "pad": "pad_token_id",
    "scaled_embedding": "scale_embedding",
    "start": "decoder_start_token_id",
    "end": "eos_token_id",
}
FIXED = {
    "activation_function": tuple(ACTIVATIONS),
    "tie_word_embeddings": (True,),
    "share_encoder_decoder_embeddings": (True,),
    "normalize_before": (False,),
    "add_final_layer_norm": (False,),
    "static_position_embeddings": (False, True),  # old files; the family says which
    "quantization_config": (None,),
}
# tokens appear under these names too
TIED = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")


def _block(side: str, theirs: str) -> dict[str, str]:
    at, names = f"{theirs}.layers.{{i}}", {}
    for ours, name in {"attention": "self_attn", "cross": "encoder_attn"}.items():
        if ours == "attention" or theirs == "decoder":
            for part in ("query", "key", "value"):
                names[f"{ours}/{part}"] = f"{at}.{name}.{part[0]}_proj"
            names[f"{ours}/output"] = f"{at}.{name}.out_proj"
            names[f"{ours}_norm"] = f"{at}.{name}_layer_norm"
    names |= {
        "feed_forward/expand": f"{at}.fc1",
        "feed_forward/contract": f"{at}.fc2",
        "norm": f"{at}.final_layer_norm",
    }
    return {f"{side}/{{i}}/{ours}": name for ours, name in names.items()}


BODY = {
    "embed/token": "shared",
    **_block("encoder/blocks", "encoder"),
    **_block("blocks", "decoder"),
}


def _read(found: Mapping[str, Any]) -> dict[str, Any]:
    theirs = {"encoder_heads": "encoder_attention_heads", "encoder_feed_forward": "encoder_ffn_dim"}
    decoders = ("decoder_attention_heads", "decoder_ffn_dim")
    ours = {
        field: found[key]
        for (field, key), decoder in zip(theirs.items(), decoders, strict=True)
        if found.get(key) is not None and found[key] != found.get(decoder)
    }
    if found.get("decoder_vocab_size") not in (None, found.get("vocab_size")):
        raise ValueError(
            f"config.json: decoder_vocab_size={found['decoder_vocab_size']!r} is not implemented; "
            f"supported: {found.get('vocab_size')!r}, the vocab_size."
        )
    return ours


def _write(config: Any) -> dict[str, Any]:
    if config.source_vocabulary:
        raise ValueError(
            f"{config.family}: source_vocabulary={config.source_vocabulary}, and what transformers "
            "opens has one vocabulary for both sides. Set it to 0, or keep checkpoints of ours."
        )
    inner = config.encoder()
    return {
        "encoder_attention_heads": inner.heads,
        "encoder_ffn_dim": inner.feed_forward,
        "is_encoder_decoder": True,
        "forced_eos_token_id": config.end,
        "use_cache": True,
    }


def _family(
    kind: str,
    config: type[Config],
    architecture: str,
    ending: str,
    body: dict[str, str],
    *ignored: str,
) -> Family:
    return Family(
        model_type=kind,
        config=config,
        keys=KEYS,
        fixed=FIXED,
        prefix="model",
        body=BODY | body,
        heads={
            "seq2seq_lm": Head(
                architecture,
                arrays={"head/bias": "final_logits_bias"},
                optional=("head/bias",),  # then it is zero
            ),
        },
        ignored=(*TIED, *ignored),
        read=_read,
        write=_write,
        also={f"{architecture.removesuffix(ending)}Model": "seq2seq_lm"},
    )


MARIAN = _family(
    "marian",
    marian.Config,
    "MarianMTModel",
    "MTModel",
    {},
    "model.*coder.embed_positions.weight",  # the sinusoids, stored by old versions
)
BART = _family(
    "bart",
    bart.Config,
    "BartForConditionalGeneration",
    "ForConditionalGeneration",
    {
        f"{ours}embed/{leaf}": f"{theirs}.{name}"
        for ours, theirs in {"encoder/": "encoder", "": "decoder"}.items()
        for leaf, name in {"position": "embed_positions", "norm": "layernorm_embedding"}.items()
    },
    "model.encoder.version",
    "model.decoder.version",
)
FAMILIES = (MARIAN, BART)
