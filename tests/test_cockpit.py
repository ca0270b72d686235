"""What a browser shows of a run: DVC's page of plots, and the report."""

import pytest

from minirlhf.runtime.files import read_csv, write_csv
from tests.browser import look
from tests.pipelines import dvc
from tests.test_dvc_yaml import PIPELINE

PLOTS = [next(iter(item)) for item in PIPELINE["plots"] if isinstance(item, dict)]


def plots(folder, *command):
    """The page that `dvc plots` writes, in the browser; DVC itself has nothing to complain about."""
    printed = dvc(folder, "plots", *command)
    assert printed.strip() == (folder / "dvc_plots" / "index.html").as_uri()
    shown = look(folder / "dvc_plots" / "index.html")
    assert not shown.errors and not shown.empty
    assert not [address for address in shown.requests if not address.startswith("file:")]
    assert shown.images and all(shown.images)
    return dict(shown.views)


def test_every_plot_has_marks_and_the_order_tells_the_story(clone):
    marks = plots(clone[0], "show")
    assert list(marks) == [name.replace(" ", "_") for name in PLOTS] and all(marks.values()), marks


def test_a_plot_without_data_is_left_out_and_a_missing_value_is_no_mark(clone):
    """As where no truth is known (facts), and as where an algorithm does not log a figure (DPO no entropy)."""
    folder, _ = clone
    facts, curves = folder / "details" / "facts.csv", folder / "details" / "ppo.csv"
    kept, rows = facts.read_text(), read_csv(curves)
    before = plots(folder, "show")
    try:
        write_csv(facts, [], list(read_csv(facts)[0]))
        write_csv(curves, [row | {"length": None} for row in rows])
        after = plots(folder, "show")
    finally:
        facts.write_text(kept)
        write_csv(curves, rows)
    assert before.keys() - after.keys() == {"facts_told", "facts_wrong"}
    # One line and its points are gone; those of the evaluations stay.
    assert 0 < after["alignment_length"] < before["alignment_length"]
    assert after["alignment_reward"] == before["alignment_reward"]


def test_every_figure_of_the_report_is_drawn(clone):
    shown = look(clone[0] / "results" / "report.html")
    assert not shown.errors and not shown.requests
    assert len(shown.drawings) > 10 and min(shown.drawings) > 5


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_says_what_it_shows_in_which_units(name):
    plot = next(item[name] for item in PIPELINE["plots"] if name in item)
    assert plot["title"] and plot.get("x_label", plot["x"])
    assert plot.get("y_label") or plot["template"] in ("win_rates", "scores")  # whose rows say who is compared
