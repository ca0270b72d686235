"""What people bring as their own data, through the stages source and prepare: what is kept, put right, or refused."""

import codecs
import gzip
import json
import unicodedata

import pyarrow
import pytest
from pyarrow import parquet
from transformers import GPT2Config

from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import read_json, read_jsonl, write_json, write_jsonl
from minirlhf.text.prompts import encode
from stages import prepare, source

SPLITS = ("train", "validation", "test")
BODY = "My cat left me on Tuesday and I do not know why. She has never done that before."


@pytest.fixture
def project(tmp_path, monkeypatch, settings, small_bpe):
    """A project of own posts and comparisons, a row of each in each split; the current folder."""
    monkeypatch.chdir(tmp_path)
    small_bpe.save_pretrained("models/base")
    GPT2Config(n_positions=1200).save_pretrained("models/base")
    limits = {"max_prompt_tokens": 400, "max_response_tokens": 200}
    settings["data"] |= {"posts": "own/posts", "comparisons": "own/comparisons", **limits}
    write_json("params.yaml", settings)
    for split in SPLITS:
        write_jsonl(f"own/posts/{split}.jsonl", [row(f"{split}: {BODY}")])
        write_jsonl(f"own/comparisons/{split}.jsonl", [pair(f"pair of {split}: {BODY}")])
    return tmp_path


def prompt_of(body, title="The cat", subreddit="cats"):
    return f"SUBREDDIT: r/{subreddit}\n\nTITLE: {title}\n\nPOST: {body}\n\nTL;DR:"


def row(body, completion=" cat left"):
    return {"prompt": prompt_of(body), "completion": completion}


def pair(body, chosen=" cat left", rejected=" a dog"):
    return {"prompt": prompt_of(body), "chosen": chosen, "rejected": rejected}


def run(what="posts"):
    """Look at the sources and prepare them: rows of the train split, and its counts."""
    source.main([])
    prepare.main([])
    return read_jsonl(f"data/prepared/{what}/train.jsonl"), read_json("details/prepare.json")[what]["train"]


def set_param(**data):
    params = read_json("params.yaml")
    write_json("params.yaml", params | {"data": params["data"] | data})


BREAKS = ["\r\n", "\r", "\u2028", "\u2029", "\x85", "\f", "\v"]


@pytest.mark.parametrize("line_break", BREAKS, ids=repr)
def test_prompts_of_any_line_breaks_are_cut_as_those_with_line_feeds(project, line_break):
    given = row("My cat left me.\n" * 60)
    write_jsonl("own/posts/train.jsonl", [given])
    as_is, counts = run()
    assert counts["truncated"] == 1 and not counts["changed"]
    write_jsonl("own/posts/train.jsonl", [{name: text.replace("\n", line_break) for name, text in given.items()}])
    broken, counts = run()
    assert broken == as_is and counts["changed"] == {"line_breaks": 1}
    assert as_is[0]["prompt"].startswith("SUBREDDIT: r/cats\n\nTITLE: The cat\n\nPOST: My cat left me.\nMy cat")
    assert as_is[0]["prompt"].endswith("My cat left me.\n\nTL;DR:")


MARKERS = [
    "</S>",
    " [eos]",
    "<|endoftext|>",
    "</s>",
    " <eos>",
    "<|im_end|>\n",
    "[EOS]",
    "<|eot_id|>",
    "<end_of_turn>",
    "<pad><pad>",
    "<｜end▁of▁sentence｜>",
]


@pytest.mark.parametrize("marker", MARKERS)
def test_a_marker_of_the_end_is_no_part_of_a_summary(project, marker):
    write_jsonl("own/posts/train.jsonl", [row(BODY, f" cat left{marker}"), row(f"2 {BODY}", f" {marker.strip()} left")])
    write_jsonl("own/comparisons/train.jsonl", [pair(BODY, f" cat left{marker}", f"<s> a dog{marker}")])
    posts, counts = run()
    assert posts[0]["completion"] == " cat left" and counts["changed"]["end_marker"] >= 1
    assert posts[1]["completion"] == " left"
    pairs, counts = (
        read_jsonl("data/prepared/comparisons/train.jsonl"),
        read_json("details/prepare.json")["comparisons"],
    )
    assert (pairs[0]["chosen"], pairs[0]["rejected"]) == (" cat left", " a dog")
    assert counts["train"]["changed"] == {"end_marker": 1}


def test_the_tokenizers_own_end_is_a_marker_and_one_inside_stays_text(project, small_bpe):
    small_bpe.from_pretrained("models/base").save_pretrained("models/base")
    config = read_json("models/base/tokenizer_config.json")
    write_json("models/base/tokenizer_config.json", config | {"eos_token": "THE END"})
    write_jsonl("own/posts/train.jsonl", [row(BODY, "cat left THE END"), row(f"2 {BODY}", "a <|endoftext|> b")])
    posts, counts = run()
    assert [post["completion"] for post in posts] == [" cat left", " a <|endoftext|> b"]
    assert counts["changed"] == {"end_marker": 1}


HEADS = [
    "TL;DR: ",
    "tl;dr ",
    "TLDR - ",
    "**TL;DR:** ",
    "Summary: ",
    "# Summary\n",
    "TL;DR:\n",
    "Too long; didn't read: ",
]


@pytest.mark.parametrize("head", HEADS)
def test_a_heading_is_no_part_of_a_summary(project, head):
    write_jsonl("own/comparisons/train.jsonl", [pair(BODY, f"{head}cat left", f" {head}a dog")])
    (found,), counts = run("comparisons")
    assert (found["chosen"], found["rejected"]) == (" cat left", " a dog")
    assert counts["changed"] == {"heading": 1}


def test_summaries_about_a_summary_stay(project):
    write_jsonl("own/comparisons/train.jsonl", [pair(BODY, "Summary judgement was given", "tldrs are short")])
    (found,), counts = run("comparisons")
    assert (found["chosen"], found["rejected"], counts["changed"]) == (
        " Summary judgement was given",
        " tldrs are short",
        {},
    )


PROMPT = prompt_of(BODY)
REPEATS = {
    "as it is": PROMPT,
    "after white space": f" \n{PROMPT}",
    "one line break": PROMPT.replace("\n\n", "\n"),
    "\\r\\n": PROMPT.replace("\n", "\r\n"),
    "without TL;DR:": PROMPT.removesuffix("\n\nTL;DR:"),
    "without SUBREDDIT": PROMPT.partition("\n\n")[2],
    "the post alone": f"POST: {BODY}\n\nTL;DR:",
    "in capitals": PROMPT.upper(),
    "double spaces": PROMPT.replace(" ", "  "),
    "after BOS": f"<s>{PROMPT}",
}


@pytest.mark.parametrize("repeated", REPEATS.values(), ids=REPEATS)
def test_a_prompt_at_the_head_of_its_summaries_is_taken_off(project, repeated):
    write_jsonl("own/comparisons/train.jsonl", [pair(BODY, f"{repeated} cat left", f"{repeated} a dog")])
    (found,), counts = run("comparisons")
    assert (found["chosen"], found["rejected"]) == (" cat left", " a dog")
    assert counts["changed"]["repeated_prompt"] == 1


def test_a_summary_that_begins_as_a_short_prompt_is_left(project):
    write_jsonl("own/posts/train.jsonl", [{"prompt": "My cat", "completion": "My cat left"}])
    (found,), counts = run()
    assert (found["completion"], counts["changed"]) == (" My cat left", {})


SPELLINGS = {
    "without TL;DR:": PROMPT.removesuffix("\n\nTL;DR:"),
    "tl;dr": PROMPT.replace("TL;DR:", "tl;dr:"),
    "one line break": PROMPT.replace("\n\n", "\n"),
    "\\r\\n": PROMPT.replace("\n", "\r\n"),
    "tabs": PROMPT.replace("\n\n", "\t"),
    "a double space": PROMPT.replace("cat left", "cat  left"),
    "no-break spaces": PROMPT.replace(" ", "\u00a0"),
    "without SUBREDDIT": PROMPT.partition("\n\n")[2],
    "without SUBREDDIT and TITLE": f"POST: {BODY}\n\nTL;DR:",
    "the text alone": BODY,
    "as an article": f"Article:\n{BODY}\n\nSummary:",
    "another subreddit": prompt_of(BODY, subreddit="pets"),
    "decomposed": unicodedata.normalize("NFD", PROMPT),
    "curly quotes": PROMPT.replace("'", "’"),
    "in small letters": PROMPT.lower(),
    "invisible": PROMPT.replace("cat", "c\u200bat") + "\ufeff",
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_a_test_post_is_held_out_in_any_spelling(project, spelling):
    write_jsonl("own/posts/test.jsonl", [{"prompt": PROMPT.replace("why", "café's why"), "completion": "cat left"}])
    spelling = spelling.replace("why", "café's why").replace("WHY", "CAFÉ'S WHY")
    rows = [{"prompt": spelling, "chosen": "a", "rejected": "b"}, pair(f"other: {BODY}")]
    write_jsonl("own/comparisons/train.jsonl", rows)
    kept, counts = run("comparisons")
    assert len(kept) == 1 and counts["refused"] == {"held_out": 1}


def test_another_post_of_the_same_words_in_its_body_is_another(project):
    write_jsonl("own/posts/test.jsonl", [{"prompt": prompt_of("see title", "cat left"), "completion": "cat"}])
    rows = [{"prompt": prompt_of("see title", "dog left"), "chosen": "a", "rejected": "b"}]
    write_jsonl("own/comparisons/train.jsonl", rows)
    assert run("comparisons")[1]["kept"] == 1


def rows_of(count=3):
    return [row(f"{number}: {BODY}") for number in range(count)]


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_csv(rows, delimiter=","):
    def quoted(text):
        return '"' + text.replace('"', '""') + '"'

    header = ["id", *rows[0]]
    body = [[str(number), *map(quoted, row.values())] for number, row in enumerate(rows)]
    return "\r\n".join(delimiter.join(fields) for fields in [header, *body]) + "\r\n"


FILES = {
    "a byte order mark": ("train.jsonl", lambda rows: codecs.BOM_UTF8 + lines(rows).encode()),
    "a mark in every line": ("train.jsonl", lambda rows: lines(rows).replace('{"prompt', '\ufeff{"prompt').encode()),
    "UTF-16, as PowerShell writes": ("train.jsonl", lambda rows: lines(rows).encode("utf-16")),
    "lines that end with \\r\\n": ("train.jsonl", lambda rows: lines(rows).replace("\n", "\r\n").encode()),
    "lines that end with \\r": ("train.jsonl", lambda rows: lines(rows).replace("\n", "\r").encode()),
    "ndjson": ("train.ndjson", lambda rows: lines(rows).encode()),
    "a list": ("train.json", lambda rows: json.dumps(rows, indent=1).encode()),
    "a list called jsonl": ("train.jsonl", lambda rows: json.dumps(rows, indent=1).encode()),
    "a list with a mark": ("train.json", lambda rows: codecs.BOM_UTF8 + json.dumps(rows).encode()),
    "lines called json": ("train.json", lambda rows: lines(rows).encode()),
    "an object with data": ("train.json", lambda rows: json.dumps({"version": 1, "data": rows}).encode()),
    "an object with train": ("train.json", lambda rows: json.dumps({"train": rows}).encode()),
    "the hub's viewer": ("train.json", lambda rows: json.dumps({"rows": [{"row": row} for row in rows]}).encode()),
    "columns": ("train.json", lambda rows: json.dumps({key: [row[key] for row in rows] for key in rows[0]}).encode()),
    "pandas": ("train.json", lambda rows: json.dumps(
        {key: {str(number): row[key] for number, row in enumerate(rows)} for key in rows[0]}).encode()),
    "CSV": ("train.csv", lambda rows: as_csv(rows).encode("utf-8-sig")),
    "CSV of Excel": ("train.csv", lambda rows: as_csv(rows, ";").encode()),
    "gzip": ("train.csv.gz", lambda rows: gzip.compress(as_csv(rows).encode())),
    "TSV": ("train.tsv", lambda rows: as_csv(rows, "\t").encode()),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_files_of_other_kinds(project, case):
    name, content = FILES[case]
    (project / "own/posts/train.jsonl").unlink()
    (project / "own/posts" / name).write_bytes(content(rows_of()))
    kept, counts = run()
    assert [post["prompt"] for post in kept] == [post["prompt"] for post in rows_of()]
    assert counts["refused"] == counts["changed"] == {}


def test_parquet_with_other_columns(project):
    (project / "own/posts/train.jsonl").unlink()
    table = pyarrow.table({
        "post": [f"{number} {BODY}" for number in range(3)], "subreddit": ["r/a", "b", "b"], "title": ["T"] * 3,
        "summary": ["cat left", None, "gone"], "score": [1, 2, 3]})  # fmt: skip
    parquet.write_table(table, "own/posts/train.parquet")
    kept, counts = run()
    assert kept[0]["prompt"] == prompt_of(f"0 {BODY}", "T", "a") and kept[1]["completion"] == " gone"
    assert counts["refused"] == {"missing_field": 1}


def test_scores_that_say_otherwise_are_no_preference(project):
    scores = [(5, 4.5), (5.0, 5.0), (3, 7), (None, 7), ("5", "6")]
    rows = [
        pair(f"{number} {BODY}") | {"score_chosen": chosen, "score_rejected": rejected}
        for number, (chosen, rejected) in enumerate(scores)
    ]
    write_jsonl("own/comparisons/train.jsonl", rows)
    assert run("comparisons")[1]["refused"] == {"no_preference": 2}


def test_choices_of_csv_are_texts(project):
    (project / "own/comparisons/train.jsonl").unlink()
    rows = [f"{number} My cat left me,a cat,a dog,{choice}" for number, choice in enumerate((0, 1, 2, "tie"))]
    content = "\n".join(["query,response0,response1,choice", *rows])
    (project / "own/comparisons/train.csv").write_text(content)
    kept, counts = run("comparisons")
    assert [each["chosen"] for each in kept] == [" a cat", " a dog"] and counts["refused"] == {"missing_field": 2}


def test_columns_in_capitals_and_a_label_that_is_a_number(project):
    rows = [
        {"Prompt": f"1 {BODY}", "Completion": "cat left"},
        {"prompt": f"2 {BODY}", "label": 1, "summary": "cat left"},
    ]
    write_jsonl("own/posts/train.jsonl", rows)
    kept, counts = run()
    assert [each["completion"] for each in kept] == [" cat left"] * 2 and counts["refused"] == {}


def test_columns_that_are_no_text_are_named_with_their_types(project):
    write_jsonl("own/posts/train.jsonl", [{"prompt": BODY, "completion": ["cat left"]}] * 2)
    line = r"refused 2 mistyped_field: its columns are prompt \(str\), completion \(list\)$"
    with pytest.raises(UserError, match=line):
        run()


def test_what_only_looks_like_text_is_empty(project):
    rows = [row(BODY), row("\u200b\ufeff"), row(f"2 {BODY}", "\u2060 \u200b"), row(f"3 {BODY}", "TL;DR: </s>")]
    write_jsonl("own/posts/train.jsonl", rows)
    write_jsonl("own/comparisons/train.jsonl", [pair(BODY), pair(f"2 {BODY}", "caf\u00e9", "cafe\u0301\u200b")])
    assert run()[1]["refused"] == {"empty_prompt": 1, "empty_completion": 2}
    assert read_json("details/prepare.json")["comparisons"]["train"]["refused"] == {"identical": 1}


ARTICLE = "\n\n".join(f"Paragraph {number} tells of the cat, at some length." for number in range(40))
FORMATS = {
    "Huang et al.'s CNN/DM": ("Article:\n", "\n\nTL;DR:"),
    "an instruction above": ("Summarize the following article in one sentence.\n\n", "\n\nSummary:"),
    "an instruction below": ("", "\n\nNow write a summary of the text above."),
    "a question below": ("Context: ", "\n\nQuestion: Where is the cat?\n\nAnswer:"),
    "Alpaca": ("### Instruction:\nSummarize.\n\n### Input:\n", "\n\n### Response:"),
    "ChatML": ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant"),
}


@pytest.mark.parametrize(("head", "tail"), FORMATS.values(), ids=FORMATS)
def test_whatever_the_format_the_body_is_cut_and_what_closes_it_stays(project, small_bpe, head, tail):
    write_jsonl("own/posts/train.jsonl", [{"prompt": head + ARTICLE + tail, "completion": "cat left"}])
    (found,), counts = run()
    assert counts["truncated"] == 1 and len(encode(small_bpe, found["prompt"])) <= 400
    assert found["prompt"].startswith(head + "Paragraph 0 tells") and found["prompt"].endswith(tail)


def test_a_param_says_what_may_be_cut(project):
    prompt = f"Never cut: {BODY}\n\n[[{ARTICLE}]]\n\nnor this: {BODY}\n\nnor this"
    write_jsonl("own/posts/train.jsonl", [{"prompt": prompt, "completion": "cat left"}, row("x " * 900)])
    set_param(body=r"\[\[(?P<body>.*)\]\]")
    (found,), counts = run()
    assert found["prompt"].startswith(f"Never cut: {BODY}\n\n[[Paragraph 0")
    assert found["prompt"].endswith(f"length.]]\n\nnor this: {BODY}\n\nnor this")
    assert counts["refused"] == {"over_long": 1}  # the other has no such part


def test_the_files_that_are_not_read_are_named(project, capsys):
    write_jsonl("own/posts/train_extra.jsonl", [row(BODY)])
    write_jsonl("own/posts/.ipynb_checkpoints/train-checkpoint.jsonl", [row(BODY)])
    (project / "own/posts/validation.jsonl").rename("own/posts/val.jsonl")
    assert run()[1]["kept"] == 1
    assert "posts: own/posts: not read: train_extra.jsonl\n" in capsys.readouterr().out


LONG = "".join(f"My cat left me for the {number}th time. " for number in range(60))


def test_a_post_is_known_by_its_whole_text_and_by_what_a_cut_leaves_of_it(project):
    """Reposts with a note at their end are one prompt when it is cut away: to another split it would leak."""
    reposts = [row(f"{LONG} EDIT {number}: she is back.") for number in range(3)]
    write_jsonl("own/posts/train.jsonl", [row(BODY), reposts[0]])
    write_jsonl("own/posts/validation.jsonl", [row(f"validation: {BODY}"), *reposts[1:]])
    run()
    assert read_json("details/prepare.json")["posts"]["validation"]["refused"] == {"held_out": 2}
    write_jsonl("own/posts/train.jsonl", [row(BODY), *reposts[1:]])
    write_jsonl("own/posts/validation.jsonl", [row(f"validation: {BODY}")])
    (first, second), counts = run()
    assert counts["refused"] == {"duplicate": 1} and counts["truncated"] == 1
    write_jsonl("own/posts/test.jsonl", reposts[:1])
    write_jsonl("own/posts/train.jsonl", [row(BODY)])
    cut = {"prompt": second["prompt"], "chosen": "a", "rejected": "b"}  # as cut here, and voted on, before
    write_jsonl("own/comparisons/train.jsonl", [cut, cut | {"prompt": reposts[0]["prompt"]}, pair(BODY)])
    assert run("comparisons")[1]["refused"] == {"held_out": 2}


@pytest.mark.parametrize("label", ["TL;DR:", "TLDR -", "tl;dr", "Summary:", "Answer:", "### Response:\n"])
def test_an_answer_that_a_prompt_has_already_is_taken_off_the_prompt(project, label):
    given = {"prompt": f"{BODY}\n\n{label} the Cat  left.", "completion": "The cat left"}
    write_jsonl("own/posts/train.jsonl", [given, row(f"2 {BODY}", "The cat left")])
    (found, other), counts = run()
    assert found["prompt"] == f"{BODY}\n\n{label.strip()}" and other == row(f"2 {BODY}", " The cat left") | {
        "subreddit": "cats"
    }
    assert found["completion"] == " The cat left" and counts["changed"] == {"answered": 1}


def test_an_answer_within_a_prompt(project):
    told = f"{BODY}\n\nTL;DR: cat left, that is all.\n\nEDIT: she is back."
    rows = [
        row(told, "cat left, that is all"),
        row("My cat left.", "My cat left."),  # of one sentence
        row(f"{BODY} TL;DR: cats left, and she too.\n\nEDIT: no.", "cats left"),
        {"prompt": f"3 {BODY} A cat left because it was Tuesday.", "completion": "A cat left because it was Tuesday"},
        {"prompt": f"4 {BODY} Yes.", "completion": "yes"},
    ]
    write_jsonl("own/posts/train.jsonl", rows)
    kept, counts = run()
    assert kept[0]["prompt"] == prompt_of(f"{BODY}\n\nEDIT: she is back.")
    assert [each["prompt"] for each in kept[1:]] == [rows[number]["prompt"] for number in (1, 2, 4)]
    assert counts["refused"] == {"answer_in_prompt": 1} and counts["changed"] == {"answered": 1}
    write_jsonl("own/comparisons/train.jsonl", [pair(f"{BODY}\n\ntl;dr: a dog", "a cat", "a dog")])
    (found,), counts = run("comparisons")
    assert found["prompt"] == prompt_of(BODY) and counts["changed"] == {"answered": 1}


def test_line_breaks_that_were_escaped_twice(project):
    given = row(f'He said "no" — twice.\n{BODY}', "cat left\nfor good")
    twice = {name: json.dumps(text)[1:-1] for name, text in given.items()}
    write_jsonl("own/posts/train.jsonl", [twice])
    (found,), counts = run()
    assert found["prompt"] == given["prompt"] and found["completion"] == " cat left\nfor good"
    assert counts["changed"] == {"escaped": 1}


@pytest.mark.parametrize("text", [r"Solve x\neq y for \nu.", r"Look in C:\new\notes.", r"Replace \n with a space.",
                                  r'print("a\n") is what?', "One\nand \\n\\nTwo"])  # fmt: skip
def test_what_is_no_line_break_stays(project, text):
    write_jsonl("own/posts/train.jsonl", [{"prompt": text, "completion": "cat left"}])
    (found,), counts = run()
    assert found["prompt"] == text and counts["changed"] == {}
