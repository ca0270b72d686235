import dataclasses
import re
import xml.etree.ElementTree as ET

import pytest
from matplotlib.image import imread

from minirlhf.report.figures import DPI, FIGURES, GAP, PANEL, PANELS, PPO, TITLE, draw_panels, to_svg, write_pictures
from minirlhf.report.inputs import read_inputs
from minirlhf.report.style import VARIABLES

TEXT = "{http://www.w3.org/2000/svg}text"


@pytest.fixture(scope="module")
def panels(embedded):
    return draw_panels(read_inputs(embedded / "details", embedded / "metrics" / "seeds.csv"))


def test_every_panel_can_be_drawn_and_follows_the_theme(panels):
    assert list(panels) == [key for key in PANELS if key != "rounds"]  # there were none
    for key, figure in panels.items():
        svg = to_svg(key, figure)
        root = ET.fromstring(svg)
        assert PANELS[key].title not in {"".join(text.itertext()) for text in root.iter(TEXT)}
        assert not re.findall(r"#[0-9a-f]{6}", svg), f"{key} has a colour that the page does not know"
        assert set(re.findall(r"var\(--(\w+)\)", svg)) <= {*VARIABLES.values(), "font"}
        assert set(re.findall(r'(?:url\(#|href="#)([\w-]+)', svg)) <= set(re.findall(r' id="([\w-]+)"', svg))


def test_nothing_is_drawn_beyond_the_edges(panels):
    for key, figure in panels.items():
        (ax,) = figure.axes
        box = ax.get_tightbbox().transformed(figure.transFigure.inverted())
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= 1 and box.y1 <= PANEL[1] / (PANEL[1] + TITLE), key
        (title,) = figure.texts
        assert title.get_window_extent().y0 >= ax.get_tightbbox().y1, key


def test_the_same_data_gives_the_same_bytes(inputs, panels, tmp_path):
    for name, drawn in (("one", panels), ("two", draw_panels(inputs))):
        (tmp_path / name).mkdir()
        assert write_pictures(drawn, tmp_path / name) == [figure for figure in FIGURES if figure != "rounds"]
    for name in FIGURES.keys() - {"rounds"}:
        one, two = ((tmp_path / folder / f"{name}.png").read_bytes() for folder in ("one", "two"))
        assert one == two and one.startswith(b"\x89PNG")
    assert to_svg("ppo_kl", panels["ppo_kl"]) == to_svg("ppo_kl", draw_panels(inputs)["ppo_kl"])


def test_pictures_hold_their_panels_side_by_side_three_in_a_row(panels, tmp_path):
    wide, high = (round(inches * DPI) + 2 * round(GAP * DPI) for inches in (PANEL[0], PANEL[1] + TITLE))
    write_pictures(panels, tmp_path)
    for name, columns, rows in (("overview", 3, 1), ("ppo", 3, 3), ("truth", 2, 1), ("rouge", 1, 1)):
        picture = imread(tmp_path / f"{name}.png")
        assert picture.shape[:2] == (rows * high, columns * wide)
        for column in range(columns):
            assert picture[:high, column * wide : (column + 1) * wide, :3].min() < 0.2, "nothing is drawn there"
    few = {key: panels[key] for key in PPO[:4]}
    assert write_pictures(few, tmp_path) == ["ppo"]
    blank = imread(tmp_path / "ppo.png")[high:, wide:]
    assert blank.min() == 1


def test_what_there_is_no_data_for_is_left_out(real, tmp_path):
    inputs = read_inputs(real / "details", real / "metrics" / "seeds.csv")
    inputs.plots["reward"][:] = [dict.fromkeys(inputs.plots["reward"][0])]  # a pretrained reward model: no training
    panels = draw_panels(inputs)
    assert not panels.keys() & {"reward_loss", "facts", "reward_probes"} and "reward_margins" in panels
    drawn = write_pictures(panels, tmp_path)
    assert "truth" not in drawn and "losses" in drawn


def test_curves_that_an_algorithm_does_not_have_are_left_out(inputs):
    """DPO has no critic, and is scored on held-out posts only."""
    rows = [row | dict.fromkeys(("reward", "value_loss", "explained_variance")) for row in inputs.plots["ppo"]]
    panels = draw_panels(dataclasses.replace(inputs, plots={**inputs.plots, "ppo": rows}))
    assert {key for key in PPO if key not in panels} == {"ppo_value_loss", "ppo_explained"}


def test_names_are_drawn_as_they_are(inputs):
    """Not as formulas: these are no valid ones. And one bin is a histogram too."""
    rows = [row | {"group": r"$\foo$ a$x$b"} for row in inputs.plots["slices"]]
    lengths = inputs.plots["summary_lengths"][:1]
    panels = draw_panels(
        dataclasses.replace(inputs, plots={**inputs.plots, "slices": rows, "summary_lengths": lengths})
    )
    assert r"$\foo$ a$x$b (" in to_svg("slices", panels["slices"])


@pytest.mark.parametrize("results", ["real", "compared"])
def test_the_training_reward_is_drawn_against_kl_once(request, results):
    folder = request.getfixturevalue(results)
    inputs = read_inputs(folder / "details", folder / "metrics" / "seeds.csv")
    panels = draw_panels(inputs)
    assert [key for key in panels if key.startswith("frontier")] == ["frontier_proxy"]
    assert ">training reward<" in to_svg("frontier_proxy", panels["frontier_proxy"])


def test_rounds_are_drawn_where_there_were_some(inputs, in_rounds):
    assert "rounds" not in draw_panels(inputs)
    assert "after 2" in to_svg("rounds", draw_panels(in_rounds)["rounds"])


@pytest.mark.parametrize("key", PANELS)
def test_every_panel_says_what_it_shows(key):
    assert PANELS[key].title and PANELS[key].caption.endswith(".") and PANELS[key].draw.__doc__
