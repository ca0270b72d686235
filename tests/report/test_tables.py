from minirlhf.report.alarms import run_checks
from minirlhf.report.inputs import read_inputs
from minirlhf.report.tables import (
    Table,
    _format,
    frontier_table,
    markdown,
    measures_table,
    probe_table,
    reward_table,
    rounds_table,
    seeds_note,
    seeds_table,
    win_rate_table,
)


def test_cells_are_escaped_in_markdown():
    table = Table("T", ("", "a|b"), [("<b>", "x|y")])
    assert table.markdown() == "|  | a\\|b |\n| --- | --- |\n| <b> | x\\|y |"


def test_numbers_stand_right_and_have_no_negative_zero():
    assert Table("T", ("", "x"), [("a", "1.5"), ("b", "")]).markdown().split("\n")[1] == "| --- | ---: |"
    assert [_format(-0.0001, "%"), _format(-0.04, 1), _format(-0.4, 1)] == ["0.0%", "0.0", "-0.4"]


def test_numbers_are_those_of_the_metrics(inputs):
    gold = inputs.metrics["evaluate"]
    rows = {row[0]: row[1:] for row in measures_table(inputs).rows}
    assert rows["gold score"][:3] == tuple(f"{gold[name]['gold']:.2f}" for name in ("reference", "sft", "ppo"))
    assert rows["ROUGE-1"][0] == "1.000" and rows["entropy, nats a token"][0] == ""
    rate = gold["win_rate"]["ppo_vs_sft"]
    name = "PPO against SFT, sampled, by gold"
    cells = {row[0]: row[1] for row in win_rate_table(inputs).rows}
    assert cells[name] == f"{rate['value']:.1%} ({rate['low']:.1%} to {rate['high']:.1%})"


def test_the_frontiers_points_are_told_with_their_price(inputs, real):
    rows = frontier_table(inputs).rows
    assert [row[:2] for row in rows] == [("SFT", "0.00"), ("PPO after 64 episodes", "2.00")]
    assert rows[1][2].startswith("3.00 (") and len(rows[1]) == 4
    inputs.plots["frontier"][0] |= {"method": "best-of-n", "point": 4}
    assert frontier_table(inputs).rows[0][0] == "best of 4 by the training reward"
    unjudged = frontier_table(read_inputs(real / "details", real / "metrics" / "seeds.csv"))
    assert unjudged.header == ("", "KL from SFT, nats", "training reward") and len(unjudged.rows[1]) == 3


def test_what_each_round_bought(inputs, in_rounds):
    sft, first, last = rounds_table(in_rounds).rows
    assert (sft[0], first[0], last[0]) == ("SFT", "PPO after 1", "PPO after 2")
    assert sft[1] == first[1] != last[1] and first[3] == "1.25 (1.00 to 1.50)" and sft[3:] == ("",) * 8
    assert (first[4], last[4]) == ("50.0%", "80.0%")
    assert "## Rounds of feedback" in markdown(in_rounds, run_checks(in_rounds), ())
    assert rounds_table(inputs).rows == [] and "## Rounds" not in markdown(inputs, run_checks(inputs), ())


def test_markdown_has_every_table(inputs):
    text = markdown(inputs, run_checks(inputs), ("One.", "Two."))
    assert "One. Two." in text
    assert text.count("\n## ") == 9 and "nan" not in text.lower()


def test_what_the_reward_model_is_worth(inputs):
    rows = dict(reward_table(inputs).rows)
    assert rows["accuracy on held-out comparisons"] == "0.700 (0.600 to 0.800)"
    assert rows["rank correlation of score and gold"] == "0.500"
    assert probe_table(inputs).rows[0] == ("wrong facts", "80.0% (70.0% to 90.0%)", "0.50 (0.40 to 0.60)", "2.00")


def test_what_is_not_known_has_no_row(real):
    inputs = read_inputs(real / "details", real / "metrics" / "seeds.csv")
    assert not any("gold" in text for text, _ in reward_table(inputs).rows)
    assert "## Probes" not in markdown(inputs, run_checks(inputs), ("One.", "Two."))


def test_seeds_are_shown_with_the_interval_over_them_and_whether_this_run_is_one(inputs):
    rows = inputs.plots["seeds"]
    first, second, mean = seeds_table(rows).rows
    assert (first[0], second[0], mean[0]) == ("1", "2", "mean")
    # Two runs 0.1 apart: s = 0.1 / sqrt(2), so the half width is 12.706 x 0.05.
    middle = rows[0]["kl"] + 0.05
    assert mean[4] == f"{middle:.2f} ({middle - 0.6353:.2f} to {middle + 0.6353:.2f})"
    assert "none of them" not in seeds_note(inputs)
    del rows[0]
    assert "none of them" in seeds_note(inputs) and len(seeds_table(rows).rows) == 1
    rows.clear()
    assert "Training seeds" not in markdown(inputs, run_checks(inputs), ())
