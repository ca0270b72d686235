"""Which pairs a session asks about, and whose answer is known."""

import pytest

from minirlhf.feedback.pairs import CHECKS
from minirlhf.labelling.choose import checks_of, queue_of
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import write_jsonl
from minirlhf.world import posts


@pytest.fixture
def collected(tmp_path, monkeypatch):
    """A checkout with candidates of the embedded world: the author's summary, and words that never ended."""
    monkeypatch.chdir(tmp_path)
    rows = [
        {"split": "train", "summaries": [["words", False], [row["completion"], True]]}
        | {key: row[key] for key in ("prompt", "record")}
        for row in posts(1, "train", 2 * CHECKS)
    ]
    write_jsonl("data/collected/candidates.jsonl", rows)
    return tmp_path


def test_in_the_embedded_world_clear_candidates_are_checks(collected):
    queue = queue_of("candidates", "random", [])
    assert len(queue.checks) == CHECKS
    assert all(pair.summaries[pair.known].text != "words" for pair in queue.checks)


def test_a_users_own_known_pairs_take_their_place(collected, capsys):
    known = [{"prompt": f"post {number}", "chosen": "good", "rejected": "bad"} for number in range(3)]
    write_jsonl("known.jsonl", [*known, known[0], {"prompt": "post", "chosen": "same", "rejected": "same"}])
    checks = queue_of("candidates", "random", [], collected / "known.jsonl").checks
    assert [(pair.prompt, pair.summaries[pair.known].text.strip()) for pair in checks] == [
        (f"post {number}", "good") for number in range(3)
    ]
    assert "1 left out: identical" in capsys.readouterr().err


def test_elsewhere_there_are_none_and_a_file_without_any_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert checks_of(None) == []
    write_jsonl("known.jsonl", [{"prompt": "post", "chosen": "same", "rejected": "same"}])
    with pytest.raises(UserError, match="no comparison whose answer could be known"):
        checks_of(tmp_path / "known.jsonl")
