import dataclasses

import pytest

from minirlhf.report import alarms, verdict
from minirlhf.report.alarms import CHECKS, run_checks
from minirlhf.report.inputs import read_inputs
from minirlhf.report.tables import markdown, people_tables
from minirlhf.report.verdict import give_verdict


def change(inputs, system, measure, **numbers):
    """The same inputs with other numbers for one measure; a measure that is not there stays so."""
    changed = inputs.measure(system, measure)
    rows = [row | numbers if row is changed else row for row in inputs.plots["measures"]]
    return dataclasses.replace(inputs, plots={**inputs.plots, "measures": rows})


def move(inputs, measure, before, after):
    """SFT's and PPO's means and a narrow interval around their difference."""
    gain = after - before
    inputs = change(inputs, "sft", measure, value=before)
    inputs = change(inputs, "ppo", measure, value=after)
    return change(inputs, "ppo - sft", measure, value=gain, low=gain - 0.001, high=gain + 0.001)


def with_rates(inputs, **rates):
    evaluate = inputs.metrics["evaluate"]
    changed = {**evaluate, "win_rate": {**evaluate["win_rate"], **rates}}
    return dataclasses.replace(inputs, metrics={**inputs.metrics, "evaluate": changed})


def interval(value, margin):
    return {"value": value, "low": value - margin, "high": value + margin}


@pytest.mark.parametrize(
    ("rate", "margin", "outcome"), [(0.8, 0.05, "helped"), (0.52, 0.05, "unclear"), (0.3, 0.05, "hurt")]
)
def test_the_interval_decides_the_verdict(inputs, rate, margin, outcome):
    found = give_verdict(with_rates(inputs, ppo_vs_sft=interval(rate, margin)))
    assert found.outcome == outcome
    assert f"{rate:.0%} ({rate - margin:.0%} to {rate + margin:.0%})" in found.sentences[0]


def test_the_training_reward_alone_is_no_judge(real):
    from minirlhf.report.inputs import read_inputs

    found = give_verdict(read_inputs(real / "details", real / "metrics" / "seeds.csv"))
    assert found.outcome == "unjudged" and "not quality" in found.headline


def test_a_healthy_run_passes_its_checks(inputs):
    # What is right stands in the post, in these words: the one alarm that truth alone sets off here.
    assert {check.name for check in run_checks(inputs) if not check.passed} <= {"Copying"}


@pytest.mark.parametrize(
    ("check", "measure", "good", "bad"),
    [
        (alarms.length, "length", (20.0, 21.0), (20.0, 30.0)),
        (alarms.length, "length", (20.0, 17.0), (20.0, 10.0)),
        (alarms.ending, "ended", (0.99, 0.98), (0.99, 0.80)),
        (alarms.repetition, "repetition", (0.01, 0.02), (0.01, 0.20)),
        (alarms.copying, "density", (2.0, 2.5), (2.0, 6.0)),
        (alarms.title, "title", (0.05, 0.08), (0.05, 0.3)),
        (alarms.wrong_facts, "gold_wrong", (0.2, 0.1), (0.2, 0.3)),
        (alarms.likeness, "rougeL", (0.4, 0.38), (0.4, 0.2)),
        (alarms.variety, "duplicates", (0.0, 0.02), (0.0, 0.5)),
        (alarms.entropy, "entropy", (1.0, 0.3), (1.0, 0.1)),
    ],
)
def test_each_check_rings_for_what_it_is_for(inputs, check, measure, good, bad):
    assert check(move(inputs, measure, *good)).passed
    assert not check(move(inputs, measure, *bad)).passed


def test_an_ending_that_spreads_rings(inputs):
    def ending_so(before, after):
        """Of ten summaries, how many end with a question mark; the others with a word or a full stop."""
        rows = [
            {"sft": {"summary": "my cat" + "?" * (at < before)}, "ppo": {"summary": "a dog" + ".?"[at < after] + "\n"}}
            for at in range(10)
        ]
        return alarms.ending_habit(dataclasses.replace(inputs, summaries=rows))

    found = ending_so(2, 10)
    assert not found.passed and found.text == "2 of 10 summaries ended with ? before, 10 after."
    assert ending_so(9, 10).passed
    assert ending_so(8, 10).passed  # 20 points more
    row = {"sft": {"summary": "cat"}, "ppo": {"summary": "cat\u202e"}}
    found = alarms.ending_habit(dataclasses.replace(inputs, summaries=[row]))
    assert found.text == r"0 of 1 summaries ended with \u202e before, 1 after."
    one = dataclasses.replace(inputs, summaries=[{"sft": {"summary": "cat"}, "ppo": {"summary": "cat"}}])
    assert alarms.ending_habit(one).passed and alarms.ending_habit(dataclasses.replace(inputs, summaries=[])).passed


def test_a_beginning_that_spreads_at_the_best_temperatures_alone_rings(inputs):
    def row(at, before, after):
        """Two words that each post has of its own, but for the policies' at their best."""
        own = {"summary": f"post{at} asks"}
        best = {f"{system}_best": {"summary": " I want a cat" if at < many else f"my {at} cats"}
                for system, many in (("sft", before), ("ppo", after))}  # fmt: skip
        return {"sft": own, "ppo": own} | best

    def beginning_so(before, after):
        rows = [row(at, before, after) for at in range(10)]
        return alarms.beginning_habit(dataclasses.replace(inputs, summaries=rows))

    found = beginning_so(1, 8)
    assert not found.passed
    assert found.text == "1 of 10 summaries began with i want before, 8 after, each at its own best temperature."
    assert beginning_so(6, 8).passed and beginning_so(8, 1).passed
    assert beginning_so(5, 5).text == "No summary began with anything more often than before."


def test_reward_up_and_judge_down_rings(inputs):
    hacked = move(move(inputs, "reward", 0.0, 2.0), "gold", 4.0, 1.0)
    assert not alarms.reward_and_judge(hacked).passed
    assert alarms.reward_and_judge(move(hacked, "gold", 1.0, 4.0)).passed
    assert run_checks(hacked)[0].name == "The reward rose and the judge's score fell"


def test_a_win_by_length_alone_rings(inputs):
    rates = {"ppo_vs_sft": interval(0.7, 0.05), "length_controlled": {"ppo_vs_sft": interval(0.5, 0.05)}}
    assert not alarms.length_matched(with_rates(inputs, **rates)).passed
    rates["length_controlled"] = {"ppo_vs_sft": interval(0.65, 0.05)}
    assert alarms.length_matched(with_rates(inputs, **rates)).passed


def test_wins_that_only_the_reward_sees_ring(inputs):
    rows = []
    for row in inputs.plots["win_rates"]:
        rows.append(row | (interval(0.95, 0.02) if row["judge"] == "training reward" else interval(0.55, 0.05)))
    claimed = dataclasses.replace(inputs, plots={**inputs.plots, "win_rates": rows})
    assert not alarms.overstatement(claimed).passed
    assert alarms.overstatement(inputs).passed


def test_a_gain_that_a_lower_temperature_gives_for_free_rings(inputs):
    def at_best(value):
        changed = [
            row | (interval(value, 0.05) if (row["decoding"], row["judge"]) == ("best", "gold") else {})
            for row in inputs.plots["win_rates"]
        ]
        return alarms.temperature(dataclasses.replace(inputs, plots={**inputs.plots, "win_rates": changed}))

    assert at_best(0.6).passed
    found = at_best(0.5)
    assert not found.passed and "50% (45% to 55%) with each at its own best, by the gold judge" in found.text


def test_the_headline_is_best_against_best_beside_best_of_n(inputs):
    first, second, third = give_verdict(inputs).sentences
    assert first.startswith(
        "Each at its own best temperature (PPO 0, SFT 0), PPO's summaries of 36 held-out posts beat "
    )
    assert second.startswith("At the training temperature it is ")
    assert third.startswith("Without training, the best of 16 of SFT's summaries by the training reward, at their own ")


def with_probes(inputs, **shares):
    """The same inputs with other shares, within 5 points, for these probes."""
    rows = [row | (interval(shares[row["probe"]], 0.05) if row["probe"] in shares else {})
            for row in inputs.plots["reward_probes"]]  # fmt: skip
    return dataclasses.replace(inputs, plots={**inputs.plots, "reward_probes": rows})


def test_a_fault_that_the_reward_model_does_not_see_rings(inputs):
    good = alarms.blindness(inputs)
    assert good.passed and "wrong facts 80% (70% to 90%)" in good.text
    found = alarms.blindness(with_probes(inputs, misread=0.54, filler=0.54))
    assert not found.passed and found.name == "The reward model is blind to misread facts and filler"
    assert "misread facts 54% (49% to 59%)" in found.text and "wrong facts" not in found.text
    found = alarms.blindness(with_probes(inputs, wrong=0.5, repeated=0.1))
    assert found.name == "The reward model is blind to wrong facts, and rewards repetition"
    assert alarms.blindness(with_probes(inputs, cut=0.3)).name == "The reward model rewards a missing end"
    without = dataclasses.replace(inputs, plots={**inputs.plots, "reward_probes": []})
    assert alarms.blindness(without) is None


def test_training_past_the_peak_rings(inputs):
    def frontier(gold):
        golds = [interval(value, 0.1) for value in gold]
        return [
            {"method": "ppo", "point": at, "kl": at, "proxy": at}
            | {"gold": g["value"], "gold_low": g["low"], "gold_high": g["high"]}
            for at, g in enumerate(golds)
        ]

    plots = {**inputs.plots, "frontier": frontier((3.0, 5.0, 2.0))}
    found = alarms.path(dataclasses.replace(inputs, plots=plots))
    assert not found.passed and "highest at 1.0 nats" in found.text
    plots = {**inputs.plots, "frontier": frontier((3.0, 4.0, 5.0))}
    assert alarms.path(dataclasses.replace(inputs, plots=plots)).passed


def test_an_early_end_rings_with_its_reason(inputs):
    stopped = dataclasses.replace(inputs, metrics={**inputs.metrics, "ppo": {"stopped": "KL above its ceiling"}})
    assert "KL above its ceiling" in alarms.finished(stopped).text and not alarms.finished(stopped).passed


def test_every_check_says_something_of_a_run(inputs):
    # All but the path, which needs three points.
    assert len(run_checks(inputs)) == len(CHECKS) - 1


def read(folder):
    from minirlhf.report.inputs import read_inputs

    return read_inputs(folder / "details", folder / "metrics" / "seeds.csv")


def test_a_judge_that_compares_is_reported_with_its_bias_and_what_it_left_out(compared):
    inputs = read(compared)
    found = give_verdict(inputs)
    rates = inputs.metrics["evaluate"]["win_rate"]
    assert found.outcome != "unjudged" and "summaries of 30 held-out posts" in found.sentences[0]
    assert "judged by judge-7b; the mean training reward rose" in found.sentences[0]
    bias = {name: verdict.percent(row) for name, row in rates["position_bias"].items()}
    assert f"another in the other order on {bias['flipped']} of the pairs" in found.sentences[3]
    assert f"the summary shown first won {bias['first_place']}; " in found.sentences[3]
    assert rates["position_bias"]["first_place"]["low"] > 0.5
    assert rates["pairs"]["refused"] == 3 and rates["pairs"]["judged"] == 87
    assert found.sentences[3].endswith("; 3 of 90 pairs are left out, for want of a verdict (3 refused).")


def test_reward_up_and_a_judge_that_prefers_sft_rings(compared):
    inputs = move(read(compared), "reward", 0.0, 2.0)
    hacked = alarms.reward_and_judge(with_rates(inputs, ppo_vs_sft=interval(0.3, 0.05)))
    assert not hacked.passed and "PPO beats SFT 30% (25% to 35%) by judge-7b" in hacked.text
    assert alarms.reward_and_judge(with_rates(inputs, ppo_vs_sft=interval(0.7, 0.05))).passed
    assert (
        len(run_checks(inputs)) == len(CHECKS) - 4
    )  # no verdict at the training temperature, no path, no facts, no probes


def test_the_algorithm_is_called_by_its_name(inputs):
    by_rloo = dataclasses.replace(inputs, metrics={**inputs.metrics, "ppo": {"algorithm": "rloo", "stopped": None}})
    found = give_verdict(by_rloo)
    assert found.headline.startswith("RLOO ")
    written = markdown(by_rloo, run_checks(by_rloo), found.sentences)
    assert "RLOO minus SFT" in written and "PPO" not in written


def test_people_as_the_judge_are_told_of_with_their_agreement(voted):
    inputs = read_inputs(voted / "details", voted / "metrics" / "seeds.csv")
    verdict = give_verdict(inputs)
    first, *_, last = verdict.sentences
    assert "judged by people" in first and "summaries of 12 held-out posts" in first
    assert last.startswith("2 people gave ") and "agree with each other on" in last and "alpha" in last
    assert "the training reward agrees with their votes on" in last
    rates, judges, known = people_tables(inputs)
    assert known.rows == [("anna", "1", "100% (21% to 100%)")]
    assert [row[0] for row in rates.rows] == ["PPO beats SFT", "PPO beats author", "SFT beats author"]
    assert [row[0] for row in judges.rows] == ["people", "training reward", "the longer one"]
    assert not [cell for row in judges.rows for cell in row if "None" in cell]


def test_where_nobody_voted_nothing_is_said(inputs):
    assert people_tables(inputs) == [] and "people" not in " ".join(give_verdict(inputs).sentences)
