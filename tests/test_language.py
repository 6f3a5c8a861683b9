"""Names and prose are the field's own: one word for one thing, as CONTRIBUTING.md's glossary says.

The code once had a dialect of its own: `told` was bound in 28 files with some fifteen meanings,
`found` in 48. A reader had to learn it before the code. Each row below is a name or a phrase of
that dialect and what to write instead; a name is banned where it is defined, not where another
library's is used.
"""

import ast
import pathlib
import re
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parent.parent
FOLDERS = ("jaxkd", "configs", "experiments", "benchmarks", "tests", "docs", "results")

NAMES: tuple[tuple[str, str], ...] = (  # banned, instead
    ("told", "log_probs, header, references, message"),
    ("found", "params, rows, config, matches, result"),
    ("Found", "ResolvedDataset"),
    ("given", "params, config, arguments"),
    ("mine", "student, student_logits, own_params"),
    ("its", "teacher, teacher_logits"),
    ("there", "mask, present, positions"),
    ("here", "cache_columns, position, device"),
    ("asked", "targets, target_mask, requested"),
    ("said", "teacher_outputs"),
    ("taught", "stored_targets, teacher_logits, student"),
    ("Taught", "StoredTargets"),
    ("tell", "label"),
    ("teller", "labeller"),
    ("hold", "quantise"),
    ("held", "quantised"),
    ("released", "dequantise"),
    ("HELD", "DTYPES"),
    ("teacher_held", "teacher_dtype"),
    ("barred", "suppress_tokens"),
    ("ends", "eos_ids"),
    ("open_", "unfinished"),
    ("follow", "reorder_cache"),
    ("tidy", "compact_cache"),
    ("Inside", "BlockInternals"),
    ("mixed", "context"),
    ("vectors", "qkv, embeddings"),
    ("Places", "CachePositions"),
    ("shown", "token_mask, attention_mask, printed"),
    ("in_a_row", "sequential"),
    ("beside", "parallel_beams, baseline"),
    ("way", "strategy, mode"),
    ("spread", "shard, standard_deviation, variance"),
    ("placed", "sharded"),
    ("Agreed", "CollectiveFlag"),
    ("heed", "raise_if_stopping"),
    ("wanted", "expected, needed"),
    ("fits", "config_overrides, allowed"),
    ("opens", "rows_class"),
    ("alike", "length_buckets, equal"),
    ("kept_arrays", "cached_arrays"),
    ("padded_width", "bucket_length"),
    ("seedling", "student_init"),
    ("Draw", "Initialise"),
    ("Reader", "EncoderLayer"),
    ("Writer", "DecoderLayer"),
    ("leave", "save_model"),
    ("better", "model (of a Comparison), higher_is_better"),
    ("than", "baseline"),
)
# Lines of code that hold a banned word because results depend on it.
ALLOWED = {("configs/sequence.py", "seedling")}
# Fields of these classes only: a feed-forward's `inner` channels are a word of the field.
FIELDS = {("Outputs", "inner"): "ffn_activations", ("BlockInternals", "inner"): "ffn_activations"}

PHRASES: tuple[tuple[str, str], ...] = (  # banned (a regular expression), instead
    (r"\b(hangs?|hanging|hung) on\b", "depends on"),
    (r"\b(is|are|was|were|be) asked for\b", "is a target, is needed"),
    (r"\bby its share\b", "weighted by its probability"),
    (r"\bwhat is more\b", "the rest"),
    (r"\bso many\b", "that many, n"),
    (r"\bbad microphone\b", "repeated and replaced letters"),
    (r"\bstutter\w*", "repeated letters"),
    (r"\bseedlings?\b", "student_init, the initial student"),
    (r"\btold\b", "says, reported, passed, distinguished"),
    (r"\bout of a store\b", "from a store"),
    (r"\b(was|were) wanted\b|\bwanted (was|were)\b", "the result alone; targets belong to issues"),
)


def defined(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """(line, name, class it is a field of or "") of all that a file defines, arguments included."""
    fields = {
        id(statement.target): node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for statement in node.body
        if isinstance(statement, ast.AnnAssign)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            name = node.id if isinstance(node, ast.Name) else node.attr
            yield node.lineno, name, fields.get(id(node), "")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name, ""
        elif isinstance(node, ast.arg | ast.keyword) and node.arg:
            yield node.lineno, node.arg, ""
        elif isinstance(node, ast.alias) and node.asname:
            yield node.lineno, node.asname, ""
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.lineno, node.name, ""


def banned_names(source: str) -> list[tuple[int, str, str]]:
    """(line, name, what to write instead) of a Python file."""
    instead = dict(NAMES)
    hits = []
    for line, name, owner in defined(ast.parse(source)):
        word = FIELDS.get((owner, name)) or instead.get(name.lstrip("_"))
        if word:
            hits.append((line, name, word))
    return sorted(set(hits))


def banned_phrases(text: str, *, markdown: bool = False) -> list[tuple[int, str, str]]:
    """(line, phrase, what to write instead); a phrase may run over a line's end."""
    if markdown:  # a name between backticks is code: the glossary quotes what it bans
        text = re.sub(r"`[^`\n]+`", lambda code: " " * len(code.group()), text)
    hits = []
    for pattern, word in PHRASES:
        for match in re.finditer(pattern.replace(" ", r"[\s#]+"), text, re.IGNORECASE):
            phrase = " ".join(re.sub(r"[\s#]+", " ", match.group()).split())
            hits.append((text.count("\n", 0, match.start()) + 1, phrase, word))
    return sorted(hits)


def files(*endings: str) -> list[pathlib.Path]:
    inside = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    every = [path for path in (*ROOT.iterdir(), *inside) if path.suffix in endings]
    return sorted(path for path in every if path != pathlib.Path(__file__) and path.is_file())


def report(hits: list[tuple[pathlib.Path, tuple[int, str, str]]]) -> str:
    return "\n".join(
        f"{path.relative_to(ROOT)}:{line}: {word!r}; write: {instead}"
        for path, (line, word, instead) in hits
    )


def test_names_are_the_fields_own():
    hits = [(path, hit) for path in files(".py") for hit in banned_names(path.read_text())]
    assert not hits, f"{len(hits)} names of the old dialect:\n{report(hits)}"


def test_prose_is_the_fields_own():
    hits = [
        (path, hit)
        for path in files(".py", ".md")
        for hit in banned_phrases(path.read_text(), markdown=path.suffix == ".md")
        if (str(path.relative_to(ROOT)), hit[1]) not in ALLOWED
    ]
    assert not hits, f"{len(hits)} phrases of the old dialect:\n{report(hits)}"


def test_a_name_is_seen_wherever_it_is_defined_and_nowhere_else():
    source = (
        "import numpy as held\n"
        "class Draw:\n"
        "    fits: int = 0\n"
        "def teller(asked, *, _mine=1):\n"
        "    for told in asked.given: pass\n"
        "    return [x for there, x in f(wanted=1)]\n"
        "class Outputs:\n"
        "    inner: int = 0\n"
        "class FeedForward:\n"
        "    inner: int = 0\n"
        "self.spread = released.found\n"
    )
    lines = [(line, name) for line, name, _ in banned_names(source)]
    assert lines == [
        (1, "held"), (2, "Draw"), (3, "fits"), (4, "_mine"), (4, "asked"), (4, "teller"),
        (5, "told"), (6, "there"), (6, "wanted"), (8, "inner"), (11, "spread"),
    ]  # fmt: skip


def test_a_phrase_is_seen_over_a_lines_end_and_not_in_code():
    comment = "x = 1  # the result hangs\n# on a seed; it is Told\n"
    assert [(line, phrase) for line, phrase, _ in banned_phrases(comment)] == [
        (1, "hangs on"),
        (2, "Told"),
    ]
    assert banned_phrases("write `depends on`, not `hangs on`", markdown=True) == []
    assert len(banned_phrases("it hangs on `x`", markdown=True)) == 1


def test_no_name_is_both_banned_and_recommended():
    banned = {name for name, _ in NAMES}
    recommended = {word for _, instead in NAMES for word in re.findall(r"\w+", instead)}
    assert not banned & recommended
