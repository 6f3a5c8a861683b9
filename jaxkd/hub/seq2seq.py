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
# other names of the token embedding in files
TIED = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")


# absent keys of both families
_LARGE = {
    "d_model": 1024,
    "encoder_layers": 12,
    "decoder_layers": 12,
    "encoder_attention_heads": 16,
    "decoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "decoder_ffn_dim": 4096,
}


def _block(side: str, stack: str) -> dict[str, str]:
    layer, names = f"{stack}.layers.{{i}}", {}
    for module, name in {"attention": "self_attn", "cross": "encoder_attn"}.items():
        if module == "attention" or stack == "decoder":
            for part in ("query", "key", "value"):
                names[f"{module}/{part}"] = f"{layer}.{name}.{part[0]}_proj"
            names[f"{module}/output"] = f"{layer}.{name}.out_proj"
            names[f"{module}_norm"] = f"{layer}.{name}_layer_norm"
    names |= {
        "feed_forward/expand": f"{layer}.fc1",
        "feed_forward/contract": f"{layer}.fc2",
        "norm": f"{layer}.final_layer_norm",
    }
    return {f"{side}/{{i}}/{path}": name for path, name in names.items()}


BODY = {
    "embed/token": "shared",
    **_block("encoder/blocks", "encoder"),
    **_block("blocks", "decoder"),
}


def _read(stored: Mapping[str, Any]) -> dict[str, Any]:
    keys = {"encoder_heads": "encoder_attention_heads", "encoder_feed_forward": "encoder_ffn_dim"}
    decoders = ("decoder_attention_heads", "decoder_ffn_dim")
    fields = {
        field: stored[key]
        for (field, key), decoder in zip(keys.items(), decoders, strict=True)
        if stored.get(key) is not None and stored[key] != stored.get(decoder)
    }
    if stored.get("decoder_vocab_size") not in (None, stored.get("vocab_size")):
        raise ValueError(
            f"config.json: decoder_vocab_size={stored['decoder_vocab_size']!r} is not implemented; "
            f"supported: {stored.get('vocab_size')!r}, the vocab_size."
        )
    return fields


def _write(config: Any) -> dict[str, Any]:
    if config.source_vocabulary:
        raise ValueError(
            f"{config.family}: source_vocabulary={config.source_vocabulary}, and what transformers "
            "opens has one vocabulary for both sides. Set it to 0, or keep checkpoints of ours."
        )
    encoder = config.encoder()
    return {
        "encoder_attention_heads": encoder.heads,
        "encoder_ffn_dim": encoder.feed_forward,
        "is_encoder_decoder": True,
        # null where the source forces none: absent keys mean that the last token is the end token
        "forced_eos_token_id": config.generation.get("forced_eos_token_id"),
        "bos_token_id": config.generation.get("bos_token_id"),
        "use_cache": True,
    }


def _family(
    kind: str,
    config: type[Config],
    architecture: str,
    ending: str,
    body: dict[str, str],
    *ignored: str,
    absent: Mapping[str, Any],
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
                copies=dict.fromkeys(TIED, "model.shared.weight"),
            ),
        },
        ignored=ignored,
        absent=absent,
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
    absent=_LARGE
    | {
        "activation_function": "gelu",
        "max_position_embeddings": 1024,
        "scale_embedding": False,
        "forced_eos_token_id": 0,
    },
)
BART = _family(
    "bart",
    bart.Config,
    "BartForConditionalGeneration",
    "ForConditionalGeneration",
    {
        f"{part}embed/{leaf}": f"{stack}.{name}"
        for part, stack in {"encoder/": "encoder", "": "decoder"}.items()
        for leaf, name in {"position": "embed_positions", "norm": "layernorm_embedding"}.items()
    },
    "model.encoder.version",
    "model.decoder.version",
    absent=_LARGE | {"bos_token_id": 0, "forced_eos_token_id": 2},
)
FAMILIES = (MARIAN, BART)
