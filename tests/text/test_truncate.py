import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirlhf.text.prompts import Post, build_completion, build_prompt, encode, parse_prompt
from minirlhf.text.truncate import truncate_messages, truncate_prompt


def words(text):
    return len(text.split())


def test_the_worked_example_of_the_docstring():
    prompt = build_prompt(Post("a", "b", "One two. Three four.\nFive"))
    assert prompt == "SUBREDDIT: r/a\n\nTITLE: b\n\nPOST: One two. Three four.\nFive\n\nTL;DR:"
    cuts = {limit: truncate_prompt(prompt, limit, words) for limit in (11, 10, 9, 8, 7, 6)}
    assert {limit: cut and parse_prompt(cut).body for limit, cut in cuts.items()} == {
        11: "One two. Three four.\nFive",
        10: "One two. Three four.",
        9: "One two.",
        8: "One two.",
        7: "One",
        6: None,
    }
    assert all(cut is None or cut.endswith("\n\nTL;DR:") for cut in cuts.values())


def test_a_word_too_long_is_cut_between_letters():
    prompt = build_prompt(Post("a", "b", "x" * 100_000))
    assert parse_prompt(truncate_prompt(prompt, 100, len)).body == "x" * (100 - len(prompt) + 100_000)


@pytest.mark.parametrize("body", ["x" * 100_000, " " * 99_999 + "x", "\n" * 99_999 + "x", "🙂 \x00.\n" * 20_000])
def test_long_and_odd_posts_take_no_time(body):
    cut = truncate_prompt("SUBREDDIT: r/a\n\nTITLE: b\n\nPOST: y " + body + "\n\nTL;DR:", 100, len)
    assert len(cut) <= 100 and parse_prompt(cut).body.startswith("y")
    assert truncate_prompt(" " * 99_999 + "x", 10, len) == "x"


def test_other_formats_are_cut_at_their_end():
    assert truncate_prompt("one two three", 2, words) == "one two"
    assert truncate_prompt("one two three\n\nTL;DR:", 3, words) == "one two\n\nTL;DR:"


def test_real_posts_are_cut_to_fit(gpt2, real_posts):
    def count(text):
        return len(encode(gpt2, text))

    for row in real_posts[:40]:
        prompt, post = row["prompt"], parse_prompt(row["prompt"])
        assert truncate_prompt(prompt, 512, count) == prompt
        assert build_completion(row["completion"]) == row["completion"].rstrip()
        cut = truncate_prompt(prompt, 150, count)
        assert count(cut) <= 150
        part = parse_prompt(cut)
        assert part[:2] == post[:2] and post.body.startswith(part.body) and part.body
        assert cut.endswith("\n\nTL;DR:")


@pytest.mark.parametrize("limit", [64, 128, 256])
def test_real_posts_are_cut_at_the_last_line_break_or_sentence_that_fits(gpt2, real_posts, limit):
    """By trying every break, best kind first."""

    def count(text):
        return len(encode(gpt2, text))

    def fits(post, end):
        return count(build_prompt(post._replace(body=post.body[:end].rstrip()))) <= limit

    kinds = (r"\n", r"(?<=[.!?])\s|(?<=[.!?][\"')])\s", r"\s")
    used = [0] * len(kinds)
    for row in real_posts[:25]:
        post, cut = parse_prompt(row["prompt"]), truncate_prompt(row["prompt"], limit, count)
        if fits(post, None):
            assert cut == row["prompt"]
            continue
        for kind, pattern in enumerate(kinds):
            ends = [match.start() for match in re.finditer(pattern, post.body) if fits(post, match.start())]
            if ends:
                used[kind] += 1
                assert cut == build_prompt(post._replace(body=post.body[: max(ends)].rstrip()))
                break
    assert used[0] and used[1]  # the cases are there


@given(st.text(), st.text(max_size=20), st.integers(0, 60))
def test_whatever_the_post_the_cut_fits_and_keeps_the_frame(body, title, limit):
    prompt = build_prompt(Post("a", title, body))
    cut = truncate_prompt(prompt, limit, len)
    if cut is None:
        assert len(prompt) > limit
        return
    assert len(cut) <= limit
    assert cut.endswith("TL;DR:")
    if parse_prompt(prompt):
        assert parse_prompt(cut).title == parse_prompt(prompt).title


@given(st.text(), st.integers(0, 60))
def test_any_text_is_cut_to_a_beginning_of_it_or_refused(text, limit):
    cut = truncate_prompt(text, limit, len)
    assert cut is None or len(cut) <= limit


@given(text=st.text() | st.text(st.sampled_from("ab \n.!?🙂\x00\u202e")), limit=st.integers(0, 40))
def test_what_is_cut_fits_as_a_tokenizer_counts(small_bpe, text, limit):
    """Token counts are not monotonic in the text; what is returned fits all the same."""

    def count(part):
        return len(encode(small_bpe, part))

    for prompt in (text, build_prompt(Post("a", "b", text))):
        cut = truncate_prompt(prompt, limit, count)
        assert cut is None or count(cut) <= limit


WORDS = "my cat left. why? she was fed, and\tbrushed! früher 猫 It".split()
PROSE = st.lists(st.sampled_from(WORDS), min_size=1, max_size=60).map(" ".join)
LONG = st.lists(st.sampled_from(WORDS), min_size=20, max_size=60).map(" ".join)  # longer than what stands around it
BODIES = st.tuples(st.lists(PROSE, max_size=3), LONG, st.lists(PROSE, max_size=2)).map(
    lambda parts: "\n\n".join([*parts[0], parts[1], *parts[2]])
)
HEADS = [
    "",
    "Article:\n",
    "ARTICLE: ",
    "Summarize the article below.\n\n",
    "Please summarize:\n\n",
    "### Instruction:\nSum up.\n\n### Input:\n",
    "Title: A cat\n\nText: ",
    "<|im_start|>user\n",
    "SUBREDDIT: r/a\n\nTITLE: b\n\nPOST: ",
    "TITLE: b\nPOST: ",
]
TAILS = [
    "\n\nTL;DR:",
    "\nTL;DR:",
    " TL;DR:",
    "\n\nSummary:",
    "\n\nSummary in one sentence:",
    "\n\n### Response:\n",
    "\n\n**TL;DR**:",
    "\n\nQuestion: Where is the cat?\n\nAnswer:",
    "<|im_end|>\n<|im_start|>assistant\n",
    "\n\ntl;dr",
    "\n---\nOne line:",
]


@given(st.sampled_from(HEADS), BODIES, st.sampled_from(TAILS), st.integers(1, 150))
def test_a_cut_prompt_of_any_format_has_a_body_and_what_closes_it(head, body, tail, limit):
    prompt = head + body + tail
    cut = truncate_prompt(prompt, limit, words)
    if cut is None or words(prompt) <= limit:
        return
    assert words(cut) <= limit
    assert cut.rstrip().endswith(tail.strip()) and cut.startswith(head)
    part = cut[len(head) :].rstrip().removesuffix(tail.strip()).strip()
    assert part and body.startswith(part[: len(part) // 2])


@given(st.lists(PROSE, min_size=1, max_size=7), st.integers(1, 120), st.sampled_from(["\n\n", "\n"]))
def test_a_dialogue_keeps_its_last_turn(said, limit, between):
    """The oldest turns go, the last question stays, or a part of it where it is the longest."""
    said = said if len(said) % 2 else said[1:] or said
    turns = [f"{('Human', 'Assistant')[at % 2]}: {text}" for at, text in enumerate(said)]
    prompt = "Be kind." + between + between.join([*turns, "Assistant:"])
    cut = truncate_prompt(prompt, limit, words)
    if cut is None or words(prompt) <= limit:
        return
    assert words(cut) <= limit
    assert cut.startswith(f"Be kind.{between}Human:") and cut.endswith(f"{between}Assistant:")
    last = cut[: -len("Assistant:")].rpartition("Human:")[2]
    assert last.strip() and (len(said) == 1 or said[-1].startswith(last.strip()))


def chat(*contents, system=None):
    roles = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(contents)]
    return ([{"role": "system", "content": system}] if system else []) + roles


def fits(limit):
    return lambda messages: sum(words(message["content"]) for message in messages) <= limit


def test_the_messages_of_a_chat():
    long = chat("a b c", "d e f", "g h i", "j k l", "m n o", system="s")
    assert truncate_messages(long, fits(16)) == long
    assert truncate_messages(long, fits(15)) == chat("g h i", "j k l", "m n o", system="s")
    assert truncate_messages(long, fits(9)) == chat("m n o", system="s")
    assert truncate_messages(long, fits(3)) == chat("m n", system="s")
    assert truncate_messages(long, fits(1)) is None
    article = chat("one two three four five six seven eight", "ok", "sum up")
    assert truncate_messages(article, fits(6)) == chat("one two three", "ok", "sum up")
    post = build_prompt(Post("a", "b", "One two. Three four.\nFive"))
    assert truncate_messages(chat(post), fits(9)) == chat(build_prompt(Post("a", "b", "One two.")))


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=6), st.booleans(), st.integers(0, 40))
def test_a_cut_chat_keeps_its_system_message_and_a_question(said, system, limit):
    messages = chat(*said[: len(said) - 1 + len(said) % 2], system="s" if system else None)

    def short(messages):
        return sum(len(message["content"]) for message in messages) <= limit

    cut = truncate_messages(messages, short)
    if cut is not None and not short(messages):
        assert short(cut) and cut[:system] == messages[:system]
        assert cut[-1]["role"] == "user" and all(message["content"].strip() for message in cut)
