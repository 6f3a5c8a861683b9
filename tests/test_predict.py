"""`python -m jaxkd.predict` says what transformers says of a folder."""

import pytest
import torch
import transformers

from jaxkd import predict
from jaxkd.data.tokenizers.tokenizer import open_tokenizer
from jaxkd.export.texts import open_text_model
from tests.hub.test_checkpoints import BERT, DECODER, SEQ2SEQ, random_model

transformers.logging.disable_progress_bar()
PROSE = ["the film was good and the other one was bad , not good"] * 20
TEXTS = ["the film was good", "bad", "the other one was not good , and the film was bad"]


def folder(kind, sizes, path, cache, scale=1.0, **changes):
    """A random model of transformers beside a tokenizer that fits it."""
    known = open_tokenizer(
        "trained", texts=lambda: PROSE, fingerprint="f", cache=cache, trained_size=300,
        masked=kind.endswith("Classification"), lossless=not kind.endswith("Classification"),
        layout="prompt" if kind == "LlamaForCausalLM" else "",
    )  # fmt: skip
    model = random_model(kind, **(sizes | {"vocab_size": known.vocab_size} | changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= scale  # so that texts make a difference
    model.save_pretrained(path)
    known.save(path)
    return str(path)


def output(capsys, *arguments) -> list[str]:
    assert predict.main(arguments) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("problem", [None, "multi_label_classification"])
def test_labels_and_probabilities_are_those_of_a_pipeline(problem, tmp_path, capsys):
    names = {0: "bad", 1: "good", 2: "neither"}
    path = folder(
        "BertForSequenceClassification", BERT, tmp_path / "m", tmp_path, id2label=names,
        problem_type=problem,
    )  # fmt: skip
    pipeline = transformers.pipeline("text-classification", path)
    lines = output(capsys, path, *(x for text in TEXTS for x in ("--text", text)))
    for line, expected in zip(lines, pipeline(TEXTS, top_k=None), strict=True):
        assert line == "\t".join(f"{x['label']} {x['score']:.4f}" for x in expected)
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("".join(f"{text}\tthe film was bad\n" for text in TEXTS))
    lines = output(capsys, path, "--file", str(pairs))
    rows = [{"text": text, "text_pair": "the film was bad"} for text in TEXTS]
    for line, row in zip(lines, rows, strict=True):
        expected = pipeline(row, top_k=None)
        assert line == "\t".join(f"{x['label']} {x['score']:.4f}" for x in expected)


def test_a_regression_prints_its_number(tmp_path, capsys):
    path = folder(
        "BertForSequenceClassification", BERT, tmp_path / "m", tmp_path, num_labels=1,
        problem_type="regression",
    )  # fmt: skip
    tokens = transformers.AutoTokenizer.from_pretrained(path)(TEXTS[:1], return_tensors="pt")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path)
    expected = f"{model(**tokens).logits.item():.4f}"
    assert output(capsys, path, "--text", TEXTS[0]) == [expected]


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize(
    "kind, sizes",
    [
        ("BartForConditionalGeneration", SEQ2SEQ | dict(pad_token_id=0, eos_token_id=3,
            bos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=3)),
        ("LlamaForCausalLM", DECODER | dict(eos_token_id=3, bos_token_id=2)),
    ],
)  # fmt: skip
def test_what_is_written_is_what_generate_writes(kind, sizes, beam, tmp_path, capsys):
    path = folder(kind, sizes, tmp_path / "m", tmp_path, scale=4.0)
    known = transformers.AutoTokenizer.from_pretrained(path)
    model = getattr(transformers, kind).from_pretrained(path)
    expected = []
    for text in TEXTS:
        tokens = known(text, return_tensors="pt")
        skipped = tokens["input_ids"].shape[1] if kind.startswith("Llama") else 0
        with torch.no_grad():
            ids = model.generate(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"],
                max_new_tokens=7, num_beams=beam, do_sample=False,
            )  # fmt: skip
        expected.append(known.decode(ids[0, skipped:], skip_special_tokens=True).strip())
    written = predict.predict(
        open_text_model(path), [[text] for text in TEXTS], beam=beam, max_tokens=7
    )
    assert written == expected
    assert len(set(written)) > 1


def test_mistakes_are_said_without_a_traceback(tmp_path, capsys):
    path = folder("BertForSequenceClassification", BERT, tmp_path / "m", tmp_path)
    ragged = tmp_path / "ragged.tsv"
    ragged.write_text("one\ttwo\nthree\n")
    for arguments, message in [
        ((path, "--file", str(ragged)), "line 2: 1 columns"),
        ((path, "--file", str(tmp_path / "none")), "none"),
        ((str(tmp_path), "--text", "x"), "has no config.json"),
        ((path, "--text", "x", "--pair", "y", "--pair", "z"), "1 --text and 2 --pair"),
    ]:
        assert predict.main(arguments) == 1
        assert message in capsys.readouterr().err
    ragged.write_text("a\n\nb\n")
    with pytest.raises(ValueError, match=r"ragged\.tsv, line 2"):
        predict.read_rows(ragged)
    random_model("BertForMaskedLM", **BERT).save_pretrained(path)
    assert predict.main((path, "--text", "x")) == 1
    assert "writes no text" in capsys.readouterr().err
