"""Beam search of an encoder-decoder against transformers' `generate` and CTranslate2.

    pip install -c constraints.txt -e '.[export]' && pip install ctranslate2==4.8.5
    python benchmarks/beam.py                       # 512 sentences, beam 4: who is how fast
    python benchmarks/beam.py --sentences 128 --rounds 3
    python benchmarks/beam.py --sentences 2048 --rows 512    # for an accelerator
    python benchmarks/beam.py --what width          # how a step grows with the beam
    python benchmarks/beam.py --what cache          # what a step costs more when much is cached

A Marian of opus-mt-en-de's size (6 + 6 layers of width 512, 58,101 tokens) with random weights
reads sentences of 8 to 40 tokens, sorted by length, 64 at a time, and writes exactly `--tokens`
tokens each, so that all do the same work: what is gained by leaving early is not measured, and
CTranslate2, which takes finished sentences out, does not gain it either. Nothing is timed before
all give the same hypotheses for most sentences and, in float32, scores within 1e-3.

`ctranslate2 int8` stands against ours in bfloat16. Each side has the malloc settings that suit it.
Where there is an accelerator, jax and torch take it (its float32 without TensorFloat-32),
transformers run in bfloat16 too, and CTranslate2 is left out: written, not yet measured on any.
"""

import contextlib
import dataclasses
import io
import json
import math
import pathlib
import tempfile
import time
from typing import Any

import numpy as np
import peers

OURS, LOW = "jaxkd", "jaxkd bfloat16"
TORCH, TORCH_LOW = "torch transformers", "torch transformers bfloat16"
PEERS = (TORCH, TORCH_LOW, "ctranslate2", "ctranslate2 int8")
VOCABULARY, BEAM = 58101, 4
END, PAD = 0, VOCABULARY - 1
AGREE = 0.9  # share of sentences whose best hypotheses are the same tokens


def sentences(count: int) -> list[np.ndarray]:
    """Longest first, as all who sort them do."""
    rng = np.random.default_rng(0)
    lengths = np.sort(rng.integers(8, 41, count))[::-1]
    return [np.append(rng.integers(2, PAD, n - 1), END).astype(np.int32) for n in lengths]


def write_model(folder: pathlib.Path, *, toy: bool = False) -> None:
    """A HuggingFace folder, and beside it CTranslate2's, in float32 and int8."""
    import torch
    import transformers

    torch.manual_seed(0)
    layers, width, heads = (1, 32, 2) if toy else (6, 512, 8)
    config = transformers.MarianConfig(
        vocab_size=VOCABULARY, d_model=width, encoder_layers=layers, decoder_layers=layers,
        encoder_attention_heads=heads, decoder_attention_heads=heads, encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width, activation_function="swish", max_position_embeddings=512,
        scale_embedding=True, share_encoder_decoder_embeddings=True, tie_word_embeddings=True,
        pad_token_id=PAD, eos_token_id=END, decoder_start_token_id=PAD, forced_eos_token_id=None,
        init_std=0.04, dropout=0.0,
    )  # fmt: skip
    model = transformers.MarianMTModel(config).eval()
    with torch.no_grad():
        # CTranslate2 starts from a vector of zeros.
        model.model.shared.weight[PAD] = 0.0
    model.save_pretrained(folder)
    with contextlib.suppress(ImportError):
        from ctranslate2.converters.transformers import MarianMTLoader

        for kind in ("float32", "int8"):
            spec = MarianMTLoader().get_model_spec(
                transformers.MarianMTModel.from_pretrained(folder)
            )
            words = [f"t{i}" for i in range(VOCABULARY - 1)]
            words[END], words[1] = "</s>", "<unk>"
            spec.register_source_vocabulary(words)
            spec.register_target_vocabulary(words)
            spec.config.eos_token, spec.config.unk_token = "</s>", "<unk>"
            spec.config.decoder_start_token = "</s>"
            spec.validate()
            spec.optimize(quantization=kind)
            (folder / kind).mkdir()
            spec.save(str(folder / kind))


def summary(best: list[tuple[list[int], float]]) -> dict:
    return {"tokens": [tokens for tokens, _ in best], "scores": [score for _, score in best]}


def open_ours(folder: pathlib.Path, compute: str):
    from jaxkd.hub import folder as hub

    config, params = hub.load(str(folder))
    return dataclasses.replace(config, compute=compute), params


def serve_jax(options) -> None:
    import jax

    from jaxkd.core.batch import Batch
    from jaxkd.decode.beam import Beam, searcher
    from jaxkd.decode.rows import decode_rows
    from jaxkd.models import families

    peers.jax_float32()
    low = options.serve == LOW
    config, params = open_ours(options.folder, "bfloat16" if low else "float32")
    beam = Beam(width=BEAM, max_tokens=options.tokens, min_tokens=options.tokens)
    search = searcher(
        families.build(config), config, beam, eos_ids=[END], pad=PAD, suppress_tokens=[PAD]
    )
    params = jax.device_put(params)
    rows = sentences(options.sentences)
    lengths = [len(row) for row in rows]

    def batch_of(chosen: np.ndarray) -> Batch:
        width = -(-max(lengths[i] for i in chosen) // 8) * 8
        tokens = np.full((len(chosen), width), PAD, np.int32)
        for row, i in zip(tokens, chosen, strict=True):
            row[: lengths[i]] = rows[i]
        return Batch(tokens, tokens != PAD)

    def run():
        return decode_rows(search, params, batch_of, lengths, batch_size=options.rows)

    def check() -> dict:
        results = run()
        return summary(
            list(zip(results.tokens[:, 0].tolist(), results.scores[:, 0].tolist(), strict=True))
        )

    peers.serve(check, peers.timed(run))


def serve_torch(options) -> None:
    import torch
    import transformers

    torch.set_num_threads(options.threads)
    peers.fast_float32()
    dtype = torch.bfloat16 if options.serve == TORCH_LOW else torch.float32
    model = transformers.MarianMTModel.from_pretrained(options.folder, dtype=dtype).eval()
    device = peers.torch_device()
    model.to(device)
    rows = sentences(options.sentences)

    def run() -> list[tuple[list[int], float]]:
        best = []
        for start in range(0, len(rows), options.rows):
            part = rows[start : start + options.rows]
            tokens = torch.full((len(part), len(part[0])), PAD)
            for row, ids in zip(tokens, part, strict=True):
                row[: len(ids)] = torch.tensor(ids)
            tokens = tokens.to(device)
            with torch.inference_mode():
                made = model.generate(
                    tokens, attention_mask=(tokens != PAD).long(), num_beams=BEAM,
                    min_new_tokens=options.tokens, max_new_tokens=options.tokens,
                    bad_words_ids=[[PAD]], output_scores=True, return_dict_in_generate=True,
                    do_sample=False,
                )  # fmt: skip
            summary = zip(
                made.sequences[:, 1:].tolist(), made.sequences_scores.tolist(), strict=True
            )
            best += list(summary)
        return best

    peers.serve(lambda: summary(run()), peers.timed(run))


def serve_ctranslate2(options) -> None:
    import ctranslate2

    kind = "int8" if options.serve.endswith("int8") else "float32"
    seq2seq_model = ctranslate2.Translator(
        str(options.folder / kind), compute_type=kind, intra_threads=options.threads
    )
    texts = [[*(f"t{i}" for i in row[:-1]), "</s>"] for row in sentences(options.sentences)]

    def run() -> list[tuple[list[int], float]]:
        made = seq2seq_model.translate_batch(
            texts, beam_size=BEAM, max_batch_size=options.rows, batch_type="examples",
            min_decoding_length=options.tokens, max_decoding_length=options.tokens,
            return_scores=True,
        )  # fmt: skip
        names = {"</s>": END, "<unk>": 1}
        return [
            ([names.get(word) or int(word[1:]) for word in each.hypotheses[0]], each.scores[0])
            for each in made
        ]

    peers.serve(lambda: summary(run()), peers.timed(run))


def agree(results: dict[str, dict]) -> None:
    """Stop unless all wrote the same."""
    reference = results[OURS]
    for name, each in results.items():
        pairs = zip(each["tokens"], reference["tokens"], strict=True)
        same = sum(a == b for a, b in pairs) / len(reference["tokens"])
        apart = max(abs(a - b) for a, b in zip(each["scores"], reference["scores"], strict=True))
        print(f"{name}: {same:.1%} of the hypotheses are ours; scores within {apart:.1e}")
        if name in (TORCH, "ctranslate2") and (same < AGREE or apart > 1e-3):
            raise SystemExit(f"{name} decodes something else than we do; nothing was timed.")


def step_seconds(folder: pathlib.Path, width: int, tokens: int, first: int, repeat: int) -> float:
    """Seconds a token of a batch of 16, after `first` tokens, the least of `repeat`.

    Throwing out what no beam sees, once in 16 tokens, is part of them.
    """
    import jax

    from jaxkd.core.batch import Batch
    from jaxkd.decode.beam import Beam, _Steps, kept_columns
    from jaxkd.models import families

    peers.jax_float32()
    config, params = open_ours(folder, "float32")
    params = jax.device_put(params)
    beam = Beam(width=width, max_tokens=tokens + 1, min_tokens=tokens + 1)
    steps = _Steps(families.build(config), config, beam, (END,), PAD, (PAD,))
    rows = np.stack([sentences(64)[20][:24]] * 16)
    start = np.full((16, 1), config.start, np.int32)
    begin, advance_to = jax.jit(steps.begin), jax.jit(steps.advance_to)
    compact_cache = jax.jit(steps.compact_cache, static_argnums=(1, 2))

    def on(state: Any, until: int) -> Any:
        kept = kept_columns(state.attention_mask)
        return advance_to(params, compact_cache(state, kept, 16 * width), until)

    state = begin(params, Batch(rows, np.ones(rows.shape, bool)), start, np.ones((16, 1), bool))
    for until in range(16, first + 1, 16):
        state = on(state, until)
    until, least = first + 16, math.inf
    for _ in range(repeat + 1):
        began = time.perf_counter()
        jax.block_until_ready(on(state, until))
        least = min(least, time.perf_counter() - began)
    return least / (until - int(state.count))


def main() -> None:
    parser = peers.arguments(__doc__)
    parser.add_argument("--what", choices=("peers", "width", "cache"), default="peers")
    parser.add_argument("--sentences", type=int, default=512)
    parser.add_argument("--rows", type=int, default=64, help="sentences at a time")
    parser.add_argument("--tokens", type=int, default=32, help="that each sentence gets")
    parser.add_argument("--without", default="", help="peers left out, as a,b")
    parser.set_defaults(steps=1, rounds=5)
    options = parser.parse_args()
    if options.serve:
        serves = {"jaxkd": serve_jax, "torch": serve_torch, "ctranslate2": serve_ctranslate2}
        return serves[options.serve.split()[0]](options)
    print(peers.machine())
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        with contextlib.redirect_stdout(io.StringIO()):
            write_model(folder)
        if options.what == "width":
            return of_widths(folder, options.rounds)
        if options.what == "cache":
            return of_cache(folder, options.rounds)
        available = [name for name in PEERS if _can_run(name, folder)]
        names = [OURS, LOW, *available]
        names = [name for name in names if name not in options.without.split(",")]
        words = ["--folder", place, "--threads", str(options.threads)]
        for name in ("sentences", "tokens", "rows"):
            words += [f"--{name}", str(getattr(options, name))]
        running = [peers.Peer(__file__, name, words, options.threads) for name in names]
        agree({peer.name: peer.ask("check") for peer in running})
        times = peers.interleaved(running, options.rounds, options.steps)
        for peer in running:
            peer.close()
    for name in {OURS, LOW} & set(names):
        print(f"\nAgainst {name}, {options.sentences} sentences:\n\n{peers.table(times, name)}")
    print(json.dumps({name: [round(x, 2) for x in results] for name, results in times.items()}))


def _can_run(name: str, folder: pathlib.Path) -> bool:
    if name == TORCH_LOW:
        return peers.torch_device() != "cpu"
    return name == TORCH or (folder / "int8").is_dir() and peers.torch_device() == "cpu"


def of_widths(folder: pathlib.Path, repeat: int) -> None:
    """How the time of a step grows with the beam, 16 rows, tokens 17 to 32."""
    widths = (1, 2, 4, 8, 16)
    results = [step_seconds(folder, width, 48, 16, repeat) for width in widths]
    power = np.polyfit(np.log(widths), np.log(results), 1)[0]
    print("| beams | ms a step |\n| ---: | ---: |")
    for width, seconds in zip(widths, results, strict=True):
        print(f"| {width} | {1e3 * seconds:.1f} |")
    print(f"a step's time grows with the beam's width to the power {power:.2f}")


def of_cache(folder: pathlib.Path, repeat: int) -> None:
    """What a step costs more at tokens 113 to 128 than at tokens 2 to 16, 16 rows, 4 beams."""
    early, late = (step_seconds(folder, 4, 144, first, repeat) for first in (0, 112))
    print(
        f"a step takes {1e3 * early:.1f} ms at tokens 2 to 16 and {1e3 * late:.1f} ms at tokens "
        f"113 to 128: {(late - early) / late:.1%} of it is to read what is cached between. A cache "
        f"that follows its beams by being copied would add {1e3 * copy_seconds(repeat):.1f} ms."
    )


def copy_seconds(repeat: int) -> float:
    """Of 6 layers' keys and values, 16 rows of 4 beams, 128 tokens, each beam from another."""
    import jax
    import jax.numpy as jnp

    reorder = jax.jit(lambda caches, rows: [x[rows] for x in caches])
    caches = [jnp.zeros((64, 8, 128, 64)) for _ in range(12)]
    rows = (np.arange(64).reshape(16, 4)[:, ::-1]).reshape(-1)
    jax.block_until_ready(reorder(caches, rows))
    least = math.inf
    for _ in range(repeat):
        began = time.perf_counter()
        jax.block_until_ready(reorder(caches, rows))
        least = min(least, time.perf_counter() - began)
    return least


if __name__ == "__main__":
    main()
