import json
import re
from collections import Counter

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from minirlhf.data import clean
from minirlhf.data.clean import Cleaner, Tally
from minirlhf.data.shapes import COMPARISONS, POSTS
from minirlhf.text.prompts import Post, build_prompt, encode, encode_all, parse_prompt
from minirlhf.text.spelling import digest, same_post
from minirlhf.training.sft import encode_example
from tests.conftest import EOT


def run(tokenizer, columns, rows, limit=None, excluded=(), max_prompt=100, max_response=12):
    tally, prompts = Tally(), set()
    cleaner = Cleaner(tokenizer, columns, max_prompt, max_response)
    kept = list(cleaner.clean(rows, limit, set(excluded), prompts, tally))
    assert tally.kept == len(kept)
    return kept, tally, prompts


def post(body="my cat left.", completion=" cat left"):
    return {"prompt": build_prompt(Post("a", "b", body)), "completion": completion}


def names(row):
    """What the post of a row is known by."""
    return set(map(digest, same_post(row["prompt"])[0]))


def test_rows_come_out_in_the_normal_form(small_bpe):
    raw = post(completion="cat left \n") | {"record": {"who": "cat"}, "id": 7}
    raw["prompt"] += "\n"
    (row,), tally, prompts = run(small_bpe, POSTS, [raw])
    expected = post() | {"record": {"who": "cat"}, "subreddit": "a"}
    assert row == expected
    assert prompts == names(post())
    lengths = [len(ids) for ids in encode_all(small_bpe, [row["prompt"], row["completion"]])]
    assert tally.tokens == {"prompt": lengths[:1], "completion": lengths[1:]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("invalid_utf8", "invalid_utf8"),
        ({"prompt": "p"}, "missing_field"),
        (post(completion=None), "missing_field"),
        (post(completion=["a"]), "mistyped_field"),
        (post(completion="\ud800"), "invalid_utf8"),
        (post(body=" \n"), "empty_prompt"),
        ({"prompt": "", "completion": "a"}, "empty_prompt"),
        ({"prompt": " TL;DR:", "completion": "a"}, "empty_prompt"),
        (post(completion=" \t\n"), "empty_completion"),
        (post(), "duplicate"),
        (post(body="held out"), "held_out"),
        (post(body="another", completion="word " * 20), "over_long"),
        ({"prompt": build_prompt(Post("a", "title " * 99, "b")), "completion": "a"}, "over_long"),
    ],
)
def test_each_reason_for_refusal_is_counted(small_bpe, row, reason):
    excluded = names(post(body="held out"))
    kept, tally, _ = run(small_bpe, POSTS, [post(), row], excluded=excluded)
    assert kept == [post() | {"subreddit": "a"}]
    assert tally.refused == Counter({reason: 1})


def test_comparisons_may_share_a_prompt_but_not_repeat(small_bpe):
    prompt = post()["prompt"]
    pairs = [("a", "b"), ("b", "a"), ("a", " b"), ("a", " a ")]
    rows = [{"prompt": prompt, "chosen": chosen, "rejected": rejected} for chosen, rejected in pairs]
    kept, tally, _ = run(small_bpe, COMPARISONS, rows)
    assert [(row["chosen"], row["rejected"]) for row in kept] == [(" a", " b"), (" b", " a")]
    assert tally.refused == Counter(duplicate=1, identical=1)


def test_eos_counts_in_the_length_of_a_summary(small_bpe):
    length = len(encode(small_bpe, " cat left"))
    assert run(small_bpe, POSTS, [post()], max_response=length + 1)[1].kept == 1
    assert run(small_bpe, POSTS, [post()], max_response=length)[1].refused == Counter(over_long=1)


def test_long_prompts_are_cut_and_counted(small_bpe):
    (row,), tally, prompts = run(small_bpe, POSTS, [post(body="my cat left.\n" * 50)])
    assert len(encode(small_bpe, row["prompt"])) == tally.tokens["prompt"][0] <= 100
    assert row["prompt"].endswith("my cat left.\n\nTL;DR:")
    assert tally.truncated == 1
    assert prompts == names(post(body="my cat left.\n" * 50)) | names(row)  # of the whole post, and of what is left
    assert set(map(bytes.fromhex, row["names"])) == prompts


@pytest.mark.parametrize(("max_prompt", "max_response"), [(512, 53), (150, 40)])
def test_real_posts_come_out_as_a_policy_is_to_see_them(gpt2, real_posts, max_prompt, max_response):
    """TITLE and TL;DR: kept, one space before the summary, EOS after it within the limit."""
    kept, tally, _ = run(gpt2, POSTS, real_posts, max_prompt=max_prompt, max_response=max_response)
    assert len(kept) + tally.refused["over_long"] == len(real_posts) and len(kept) > 50
    titles = {parse_prompt(row["prompt"]).title for row in real_posts}
    for row in kept:
        example = encode_example(gpt2, row["prompt"], row["completion"])
        response = [label for label in example["labels"] if label != -100]
        assert len(response) <= max_response and response.index(gpt2.eos_token_id) == len(response) - 1
        assert len(example["input_ids"]) - len(response) <= max_prompt
        text = gpt2.decode(example["input_ids"], clean_up_tokenization_spaces=False)
        assert text == row["prompt"] + row["completion"] + EOT
        assert row["prompt"].endswith("\n\nTL;DR:") and parse_prompt(row["prompt"]).title in titles
        assert re.match(r" \S", row["completion"])
    assert (tally.truncated == 0) == (max_prompt == 512)


@pytest.mark.parametrize("record", ["text", None, [1], {"who": 1}, {"who": "\ud800"}, {1: "a"}, float("nan")])
def test_a_column_that_happens_to_be_called_record_is_left_out(small_bpe, record):
    (row,), _, _ = run(small_bpe, POSTS, [post() | {"record": record}])
    assert "record" not in row
    json.dumps(row, allow_nan=False)


def test_a_limit_ends_the_reading(small_bpe, monkeypatch):
    monkeypatch.setattr(clean, "CHUNK", 4)

    def rows():
        for number in range(6):
            yield post(body=f"cat {number}")
        raise AssertionError("read too far")

    kept, _, prompts = run(small_bpe, POSTS, rows(), limit=3)
    assert [row["prompt"] for row in kept] == [post(body=f"cat {number}")["prompt"] for number in range(3)]
    assert len(prompts) == 6  # two names each


TEXTS = st.text(st.characters(exclude_categories=())) | st.none() | st.integers()


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.fixed_dictionaries({}, optional={column: TEXTS for column in COMPARISONS})))
def test_every_row_is_kept_within_limits_or_counted(small_bpe, rows):
    kept, tally, _ = run(small_bpe, COMPARISONS, rows, max_prompt=20)
    assert len(kept) + sum(tally.refused.values()) == len(rows)
    for row in kept:
        assert len(encode(small_bpe, row["prompt"])) <= 20
        assert row["chosen"] != row["rejected"]
        assert all(row[column][:1] == " " and row[column].strip() for column in COMPARISONS[1:])
