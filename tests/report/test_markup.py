"""Facts about how a table is written: markup in it stays text, numbers are set right."""

import html.parser

import pytest

from jaxkd.report import markup


@pytest.mark.parametrize("render", [markup.markdown, markup.html])
def test_markup_in_a_cell_stays_text(render):
    nasty = "<script>x</script> | *a* `b` & [c](d)"
    written = render(markup.Table(("model", nasty), ((nasty, nasty),), nasty))
    assert "<script>" not in written.replace("\\<script\\>", "")
    if render is markup.markdown:
        lines = [line.replace("\\|", "").replace("\\]", "") for line in written.splitlines()[:3]]
        assert [line.count("|") for line in lines] == [3, 3, 3]
        assert not any("](" in line for line in lines)
    else:
        cells: list[str] = []
        parser = html.parser.HTMLParser()
        parser.handle_data = cells.append
        parser.feed(written)
        assert "".join(cells).count(nasty) == 4


def test_columns_of_numbers_are_set_right():
    made = markup.Table(("a", "b", "c"), (("1", "1.0 ± 0.1", "x1"), ("2", "–", "2")), "")
    assert [made.numeric(column) for column in range(3)] == [False, True, False]
    assert markup.markdown(made).splitlines()[1] == "| --- | ---: | --- |"
