import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirlhf.data.shapes import COMPARISONS, to_shape

INFO = {"subreddit": "a", "title": "b", "post": "c"}
SUMMARIES = [{"text": " x"}, {"text": " y"}]


def test_openai_comparisons_become_trl_columns():
    prompt = "SUBREDDIT: r/a\n\nTITLE: b\n\nPOST: c\n\nTL;DR:"
    row = to_shape({"info": INFO, "summaries": SUMMARIES, "choice": 0, "worker": "w"}, COMPARISONS)
    assert row == {"prompt": prompt, "chosen": " x", "rejected": " y"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"choice": 2}, "mistyped_field"),
        ({"choice": "0"}, "mistyped_field"),
        ({"choice": 1.0}, "mistyped_field"),
        ({"summaries": SUMMARIES[:1]}, "mistyped_field"),
        ({"summaries": None}, "missing_field"),
        ({"info": {"article": "news"}}, "missing_field"),
        ({"info": INFO | {"post": None}}, "not_a_post"),
    ],
)
def test_openai_rows_that_are_refused(change, reason):
    assert to_shape({"info": INFO, "summaries": SUMMARIES, "choice": 0} | change, COMPARISONS) == reason


ODD = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=4)
PARTS = ODD | st.dictionaries(st.sampled_from(["subreddit", "title", "post", "text"]), ODD)


@given(st.dictionaries(st.sampled_from(["info", "summaries", "choice", "prompt"]), PARTS | st.lists(PARTS, max_size=2)))
def test_any_row_becomes_a_row_or_a_reason(row):
    assert isinstance(to_shape(row, COMPARISONS), dict | str)
