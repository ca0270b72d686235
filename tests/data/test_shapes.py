import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirlhf.data.shapes import COMPARISONS, POSTS, to_shape

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


MESSAGES = st.dictionaries(
    st.sampled_from(["role", "content", "from", "value"]), ODD | st.sampled_from(["user", "gpt"])
)
CHATS = st.lists(MESSAGES | ODD, max_size=3) | MESSAGES | ODD
NAMES = ["prompt", "chosen", "rejected", "completion", "messages", "conversations", "choice", "response0", "summary"]


@given(st.dictionaries(st.sampled_from(NAMES), CHATS), st.sampled_from([POSTS, COMPARISONS]))
def test_any_chat_becomes_a_row_or_a_reason(row, columns):
    found = to_shape(row, columns)
    if isinstance(found, dict):
        prompt, *answers = (found[column] for column in columns)
        assert all(isinstance(answer, str) for answer in answers)
        assert isinstance(prompt, str) or all(isinstance(text, str) for each in prompt for text in each.values())


def test_dialogues_in_one_text_are_parted_where_they_differ():
    """Anthropic/hh-rlhf has no prompt of its own."""
    said = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant:"
    row = {"chosen": f"{said} Because it is.", "rejected": f"{said} Because it rains."}
    assert to_shape(row, COMPARISONS) == {"prompt": said, "chosen": " Because it is.", "rejected": " Because it rains."}
    assert to_shape({"chosen": "one", "rejected": "other"}, COMPARISONS) == "missing_field"


def test_other_names_of_columns():
    """As in vwxyzjn's and CarperAI's data sets of TL;DR."""
    parts = {"subreddit": "a", "title": "b", "post": "c", "summary": "d", "id": 1}
    prompt = "SUBREDDIT: r/a\n\nTITLE: b\n\nPOST: c\n\nTL;DR:"
    assert to_shape(parts, POSTS) == {"prompt": prompt, "completion": "d"}
    assert to_shape({"prompt": "p", "label": "d"}, POSTS) == {"prompt": "p", "completion": "d"}
    row = {"query": "p", "response0": "x", "response1": "y", "choice": 1}
    assert to_shape(row, COMPARISONS) == {"prompt": "p", "chosen": "y", "rejected": "x"}


def test_roles_in_capitals_and_a_column_with_the_system_message():
    said = [("User", "Why?"), ("Assistant", "Because.")]
    row = {"conversation": [{"role": role, "content": content} for role, content in said]}
    question, system = {"role": "user", "content": "Why?"}, {"role": "system", "content": "Be brief."}
    assert to_shape(row, POSTS) == {"prompt": [question], "completion": "Because."}
    assert to_shape(row | {"system": "Be brief."}, POSTS)["prompt"] == [system, question]
    row["conversation"].insert(0, system)
    assert to_shape(row | {"system": "Be long."}, POSTS)["prompt"] == [system, question]
    assert to_shape(row | {"system": None}, POSTS)["prompt"] == [system, question]
