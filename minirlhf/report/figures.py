"""Every panel drawn once: as SVG for the page, and side by side in PNG files for the README and the repository."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import AutoLocator

from minirlhf.report import panels_results as results
from minirlhf.report import panels_training as training
from minirlhf.report.inputs import Inputs
from minirlhf.report.style import PAPER, RC, VARIABLES

DPI = 150
PANEL = (4.3, 3.0)  # inches, without the title; at 96 points an inch a phone's width
TITLE = 0.3  # inches above a panel, in PNG files
TICKS = 7  # steps from tick to tick, at most
GAP = 0.1  # inches around each panel of a PNG file


@dataclass(frozen=True)
class Panel:
    """One drawing: its name in files, a title, a sentence that says how to read it, and who draws it."""

    key: str
    title: str
    caption: str
    draw: Callable
    table: str  # without rows in this table there is nothing to draw
    columns: tuple[str, ...] = ()  # of that table: likewise without values in any of them


PANELS = {
    panel.key: panel
    for panel in (
        Panel("scores", "How good the summaries are", "Each at its best temperature; 95% intervals over posts.",
              results.scores, "measures"),
        Panel("win_rates", "Who wins", "Share of held-out posts won; 95% intervals over posts. What the training "
              "reward says of its own pupil is shown in grey.", results.win_rates, "win_rates"),
        Panel("temperatures", "Score against temperature", "Mean score on validation posts; bars are 95% intervals. "
              "Filled: the temperature at which each is compared on the held-out posts.",
              results.temperatures, "temperatures"),
        Panel("frontier_gold", "What it cost: score against KL", "Best of n samples of the SFT policy, "
              "chosen by the reward model, against training's path; bars are 95% intervals, lines Gao et al.'s curves.",
              results.frontier_gold, "frontier", columns=("gold",)),
        Panel("frontier_proxy", "What it cost: the training reward against KL", "Best of n and training's path by the "
              "reward that was optimized. Where this rises and a judge's score does not, the reward is being gamed.",
              results.frontier_proxy, "frontier"),
        Panel("rounds", "What each round of feedback bought", "At the training temperature; 95% intervals over posts.",
              results.rounds, "rounds"),
        Panel("facts", "Which facts are told", "Share of summaries that cover each fact, and that tell it wrong.",
              results.facts, "facts"),
        Panel("gold_parts", "What costs points", "Mean number a summary of everything the gold judge deducts for.",
              results.gold_parts, "gold_parts"),
        Panel("reward_distribution", "Rewards before and after", "Training reward of the sampled summaries.",
              results.reward_distribution, "rewards"),
        Panel("length_distribution", "Lengths before and after", "Tokens of the sampled summaries.",
              results.length_distribution, "summary_lengths"),
        Panel("rouge", "Likeness to the authors' summaries", "ROUGE usually falls a little under RLHF; it was not "
              "optimized.", results.rouge, "rouge"),
        Panel("slices", "On which posts", "Win rate by length of the post and by subreddit (number of posts).",
              results.slices, "slices"),
        Panel("seeds", "Training seeds", "The judge's mean score of each training seed's SFT and PPO; below, the mean "
              "over seeds with its 95% t interval.", results.seeds, "seeds"),
        Panel("sft_loss", "Supervised fine-tuning", "Loss on the tokens of the summaries.", training.sft_loss, "sft"),
        Panel("reward_loss", "Reward model", "Loss on comparisons.", training.reward_loss, "reward"),
        Panel("calibration", "Calibration of the reward model", "On the diagonal, it is as sure as it is right.",
              training.calibration, "calibration"),
        Panel("reward_margins", "Accuracy by margin", "Of the reward model, from close calls to clear ones: a fifth "
              "of the held-out comparisons in each point; 95% intervals over posts.",
              training.reward_margins, "reward_margins"),
        Panel("gold_margins", "Agreement with the truth", "Share of held-out comparisons ordered as the gold judge "
              "does, ties left out, by how far it sets them apart; 95% intervals over posts.",
              training.gold_margins, "gold_margins"),
        Panel("reward_probes", "What the reward model prefers", "How often it scores a clean summary above the same "
              "with one fault; 95% intervals over posts. Where they reach the line, it is blind to that fault.",
              training.reward_probes, "reward_probes"),
        Panel("ppo_reward", "Reward", "Mean of each update's episodes.", training.ppo_reward, "ppo",
              columns=("reward", "eval_reward")),
        Panel("ppo_kl", "KL from SFT", "As penalized, on each update's episodes.", training.ppo_kl, "ppo",
              columns=("kl", "eval_kl")),
        Panel("ppo_length", "Response length", "End token included.", training.ppo_length, "ppo",
              columns=("length", "eval_length")),
        Panel("ppo_entropy", "Entropy", "Of the policy, at the sampling temperature.", training.ppo_entropy, "ppo",
              columns=("entropy",)),
        Panel("ppo_policy_loss", "Policy loss", "Clipped objective.", training.ppo_policy_loss, "ppo",
              columns=("policy_loss",)),
        Panel("ppo_value_loss", "Value loss", "Of the critic.", training.ppo_value_loss, "ppo",
              columns=("value_loss",)),
        Panel("ppo_explained", "Explained variance", "Of the returns, by the critic.", training.ppo_explained, "ppo",
              columns=("explained_variance",)),
        Panel("ppo_clipped", "Clipped ratios", "Tokens whose ratio left the clip range.", training.ppo_clipped, "ppo",
              columns=("clip_fraction",)),
        Panel("ppo_gradient", "Gradient norm", "Of the policy, before clipping.", training.ppo_gradient, "ppo",
              columns=("policy_grad_norm",)),
        Panel("post_lengths", "Lengths of the data", "Training posts and the authors' summaries.",
              training.post_lengths, "lengths"),
    )
}  # fmt: skip

PPO = tuple(key for key in PANELS if key.startswith("ppo_"))
# Files of several panels; the first is the README's picture.
FIGURES = {
    "overview": ("scores", "temperatures", "win_rates"),
    "losses": ("sft_loss", "reward_loss", "calibration"),
    "reward_model": ("reward_margins", "gold_margins", "reward_probes"),
    "ppo": PPO,
    "distributions": ("reward_distribution", "length_distribution"),
    "frontier": ("frontier_gold", "frontier_proxy"),
    "rounds": ("rounds",),
    "truth": ("facts", "gold_parts"),
    "rouge": ("rouge",),
    "win_rates": ("win_rates",),
    "slices": ("slices",),
    "lengths": ("post_lengths",),
    "seeds": ("seeds",),
}


def can_draw(inputs: Inputs, key: str) -> bool:
    """Whether there is anything to draw: a table may be empty (no reward model was trained, no truth is known)."""
    panel = PANELS[key]
    rows = inputs.rounds if panel.table == "rounds" else inputs.plots[panel.table]
    if panel.columns:
        return any(row.get(name) is not None for row in rows for name in panel.columns)
    return any(value is not None for row in rows for name, value in row.items() if not isinstance(value, str))


def draw_panels(inputs: Inputs) -> dict[str, Figure]:
    """Every panel that there is something to draw for, by key: laid out, its title standing over it."""
    return {key: draw_panel(panel, inputs) for key, panel in PANELS.items() if can_draw(inputs, key)}


def draw_panel(panel: Panel, inputs: Inputs) -> Figure:
    """One panel, whether it is of PANELS or not."""
    width, height = PANEL[0], PANEL[1] + TITLE
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="tight")
        figure.get_layout_engine().set(pad=0.4, rect=(0, 0, 1, PANEL[1] / height))  # pad: font sizes
        ax = figure.add_subplot()
        panel.draw(inputs, ax)
        for axis in (ax.xaxis, ax.yaxis):
            if isinstance(locator := axis.get_major_locator(), AutoLocator):
                # Else the number of ticks follows the room that is left, and that room the ticks' labels.
                locator.set_params(nbins=TICKS)
        # Once, and no more: an engine left in place has everything drawn twice.
        figure.get_layout_engine().execute(figure)
        figure.set_layout_engine(None)
        figure.text(ax.get_position().x0, 1 - 0.05 / height, panel.title, va="top", fontsize=10, fontweight="bold")
    return figure


def write_pictures(panels: dict[str, Figure], folder: Path) -> list[str]:
    """Write those of FIGURES that have a panel as PNG into `folder`; returns their names."""
    with matplotlib.rc_context(RC):
        pixels = {key: _pixels(figure) for key, figure in panels.items()}
    written = []
    for name, keys in FIGURES.items():
        found = [pixels[key] for key in keys if key in pixels]
        if found:
            # No date and no version in the file: the same data gives the same bytes.
            imsave(folder / f"{name}.png", _tile(found), dpi=DPI, metadata={"Software": None})
            written.append(name)
    return written


def _pixels(figure: Figure) -> np.ndarray:
    """(height, width, 4) bytes, with GAP all around."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    gap = round(GAP * DPI)
    return np.pad(np.asarray(canvas.buffer_rgba()), ((gap, gap), (gap, gap), (0, 0)), constant_values=255)  # PAPER


def _tile(images: list[np.ndarray]) -> np.ndarray:
    """Images of one size side by side, at most three in a row."""
    columns = min(3, len(images))
    blank = np.full_like(images[0], 255)
    images = images + [blank] * (-len(images) % columns)
    rows = [np.concatenate(images[at : at + columns], axis=1) for at in range(0, len(images), columns)]
    return np.concatenate(rows)


def to_svg(key: str, figure: Figure) -> str:
    """A panel as SVG to stand in the page, without its title: text as text, colours as the page's CSS variables."""
    (title,) = figure.texts
    title.set_visible(False)
    buffer = io.StringIO()
    with matplotlib.rc_context({**RC, "svg.hashsalt": key}):
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", metadata=metadata, transparent=True)
    title.set_visible(True)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for color, name in VARIABLES.items():
        svg = svg.replace(color, f"var(--{name})")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", svg)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # it would hold for the whole page
    # Names of shapes are made from the panel's, so that those of two panels never meet on the page.
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\1{key}-", svg)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    width, above, height = (72 * inches for inches in (PANEL[0], TITLE, PANEL[1]))  # points
    svg = re.sub(r'viewBox="[^"]*"', f'viewBox="0 {above:g} {width:g} {height:g}"', svg, count=1)
    return re.sub(r"\s*\n\s*", "\n", svg).replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


assert PAPER in VARIABLES  # a colour that the page does not know would not follow its theme
