import re
import xml.etree.ElementTree as ET

import pytest

from minirlhf.report import figures
from minirlhf.report.figures import FIGURES, PANELS, can_draw, draw_figures, draw_svg
from minirlhf.report.inputs import read_inputs
from minirlhf.report.style import VARIABLES


def test_every_panel_can_be_drawn_and_follows_the_theme(inputs):
    for key in PANELS:
        assert can_draw(inputs, key), key
        svg = draw_svg(inputs, key)
        ET.fromstring(svg)
        assert not re.findall(r"#[0-9a-f]{6}", svg), f"{key} has a colour that the page does not know"
        assert set(re.findall(r"var\(--(\w+)\)", svg)) <= {*VARIABLES.values(), "font"}
        assert set(re.findall(r'(?:url\(#|href="#)([\w-]+)', svg)) <= set(re.findall(r' id="([\w-]+)"', svg))


def test_the_same_data_gives_the_same_bytes(inputs, tmp_path, monkeypatch):
    few = {name: FIGURES[name] for name in ("overview", "lengths")}
    monkeypatch.setattr(figures, "FIGURES", few)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        assert draw_figures(inputs, tmp_path / name) == list(few)
    for name in few:
        one, two = ((tmp_path / folder / f"{name}.png").read_bytes() for folder in ("one", "two"))
        assert one == two and one.startswith(b"\x89PNG")
    assert draw_svg(inputs, "ppo_kl") == draw_svg(inputs, "ppo_kl")


def test_what_there_is_no_data_for_is_left_out(real, tmp_path):
    inputs = read_inputs(real / "metrics", real / "plots", real / "results" / "summaries.jsonl")
    inputs.plots["reward"][:] = [dict.fromkeys(inputs.plots["reward"][0])]  # a pretrained reward model: no training
    assert not can_draw(inputs, "reward_loss") and not can_draw(inputs, "facts")
    assert not can_draw(inputs, "reward_probes") and can_draw(inputs, "reward_margins")
    drawn = draw_figures(inputs, tmp_path)
    assert "truth" not in drawn and "losses" in drawn


@pytest.mark.parametrize("results", ["real", "compared"])
def test_the_training_reward_is_drawn_against_kl_once(request, results):
    folder = request.getfixturevalue(results)
    inputs = read_inputs(folder / "metrics", folder / "plots", folder / "results" / "summaries.jsonl")
    assert [key for key in PANELS if key.startswith("frontier") and can_draw(inputs, key)] == ["frontier_proxy"]
    assert ">training reward<" in draw_svg(inputs, "frontier_proxy")


@pytest.mark.parametrize("key", PANELS)
def test_every_panel_says_what_it_shows(key):
    assert PANELS[key].title and PANELS[key].caption.endswith(".") and PANELS[key].draw.__doc__
