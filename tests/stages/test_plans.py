"""What a training asks of its data, before anything is computed."""

import dataclasses

import pytest

from jaxkd.data.rows.labelled import Labelled
from jaxkd.data.rows.masking import Masking
from jaxkd.data.rows.text import MaskedText
from jaxkd.models import roberta
from jaxkd.stages.initialise import Initialise
from jaxkd.stages.train import Train

SMALL = dict(origin="embedded", tokenizer="trained", trained_size=300, rows=32)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(masking=Masking(share=0.4)), "masking is .*share=0.4.* masks no tokens"),
        (dict(chunk=8), "chunk is 8, and the targets of the data .* are no tokens"),
    ],
)
def test_what_labelled_rows_would_ignore_is_refused(change, message, tmp_path):
    rows = Labelled(**SMALL).open(tmp_path)
    with pytest.raises(ValueError, match=message):
        Train(source="a", **change).check_config({}, rows)
    text = MaskedText(**SMALL, length=16).open(tmp_path)
    Train(source="a", **change).check_config({}, text)


def test_a_model_from_scratch_pads_as_its_tokenizer_does(tmp_path):
    rows = MaskedText(**SMALL, length=16).open(tmp_path)
    shape = roberta.Config(layers=1, width=16, heads=2, feed_forward=16)
    assert shape.pad != rows.tokenizer.pad  # RoBERTa counts positions from its padding id
    planned = Initialise(model=dataclasses.replace(shape)).plan({}, rows)
    assert planned.pad == rows.tokenizer.pad
