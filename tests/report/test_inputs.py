import shutil

import pytest

from minirlhf.report.inputs import read_inputs, read_table
from minirlhf.runtime.errors import UserError


def read(folder):
    return read_inputs(folder / "details", folder / "metrics" / "seeds.csv")


def test_judges_are_told_apart(embedded, real):
    assert (read(embedded).judging, read(embedded).judge_title) == ("gold", "the gold judge")
    assert (read(real).judging, read(real).judge_title) == ("reward", "the training reward")


def test_a_judge_that_scores_and_one_that_compares(scored, compared):
    found = read(scored)
    assert (found.judging, found.scoring, found.compares) == ("judge", "judge", False)
    assert found.score_name == "score by models/own/another-reward-model"
    found = read(compared)
    assert (found.judging, found.scoring, found.compares) == ("judge", "reward", True)
    assert (found.judge_title, found.score_name) == ("judge-7b", "training reward")


def test_columns_leave_out_what_was_not_logged(inputs):
    assert inputs.column("sft", "eval_loss") == ([4], [1.1])
    assert inputs.column("ppo", "kl")[0] == [64, 128, 192, 256]


def test_a_missing_file_is_named(embedded, tmp_path):
    folder = shutil.copytree(embedded, tmp_path / "copy")
    (folder / "details" / "rouge.csv").unlink()
    with pytest.raises(UserError, match="rouge.csv: cannot be read"):
        read(folder)


def test_a_missing_column_is_named(tmp_path):
    (tmp_path / "sft.csv").write_text("step,loss\n1,2\n")
    with pytest.raises(UserError, match="sft.csv: no column train_loss; expected step, train_loss"):
        read_table(tmp_path / "sft.csv", ("step", "train_loss"))


def test_an_empty_table_may_lack_columns(tmp_path):
    (tmp_path / "facts.csv").write_text("\n")
    assert read_table(tmp_path / "facts.csv", ("fact",)) == []
