"""A run that is over-optimized on purpose, beside the pipeline's: the table and the picture of docs/quantities.md.

    python benchmarks/quantities.py run --work runs/early_warning    # docs/quantities.csv
    python benchmarks/quantities.py draw                             # docs/quantities.png, and the page's table

The over-optimized run has the blind reward model and no KL penalty, and is else as the pipeline's, which is the healthy
one: plots/ppo.csv. Gold is that of each update's own samples, which training does not see.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.early_warning import Setting, follow, make_base
from minirlhf.runtime.files import read_csv, write_csv
from minirlhf.runtime.stage import set_up
from minirlhf.settings.params import load_params
from tests.house import made

DOCS = Path(__file__).resolve().parents[1] / "docs"
HEALTHY = DOCS.parent / "plots" / "ppo.csv"
SETTING = Setting("blind", 0.0, 3e-4)
EPISODES = 1280  # it ends before that, at kl_ceiling
# column -> what stands over its panel
PANELS = {
    "reward": "reward",
    "gold": "gold (known in the embedded world alone)",
    "kl": "KL, nats a response",
    "entropy": "entropy, nats a token",
    "length": "length, tokens",
    "ended": "share that ended",
    "explained_variance": "explained variance",
    "value_loss": "value loss",
    "policy_loss": "policy loss",
    "clip_fraction": "clip fraction",
    "approx_kl": "KL of an update, nats a token",
    "policy_grad_norm": "gradient norm of the policy",
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run")
    run.add_argument("--work", type=Path, default=DOCS.parent / "runs" / "early_warning")
    run.add_argument("--episodes", type=int, default=EPISODES)
    run.set_defaults(call=train)
    commands.add_parser("draw").set_defaults(call=draw)
    args = parser.parse_args(argv)
    args.call(args)


def train(args: argparse.Namespace) -> None:
    params = load_params()
    set_up(params.seed, 1, params.arithmetic)
    make_base(args.work, params)
    found = follow(SETTING, params.seed, args.work, params, args.episodes)
    golds = {row["update"]: {"gold": row["gold"]} for row in found.series}
    write_csv(DOCS / "quantities.csv", [row | golds.get(row["update"], {"gold": None}) for row in found.history])


def draw(args: argparse.Namespace) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    from minirlhf.report.style import BLUE, FAINT, ORANGE, RC, label_axes

    runs = {
        "healthy": (read_csv(HEALTHY), BLUE),
        "over-optimized": (read_csv(DOCS / "quantities.csv"), ORANGE),
    }
    page = DOCS / "quantities.md"
    page.write_text(made(page.read_text(), "runs", table(runs)))
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(12, 11), layout="constrained")
        for ax, (column, title) in zip(figure.subplots(4, 3).flat, PANELS.items(), strict=True):
            for name, (rows, color) in runs.items():
                pairs = [(row["episodes"], row[column]) for row in rows if row.get(column) is not None]
                if pairs:
                    ax.plot(*zip(*pairs, strict=True), color=color, label=name)
            ax.set_title(title, loc="left", fontsize=10, fontweight="bold")
            label_axes(ax, "episodes", "")
        figure.legend(
            *figure.axes[0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=2,
            frameon=False,
            labelcolor=FAINT,
        )
        figure.savefig(DOCS / "quantities.png", dpi=110, metadata={"Software": None})


def table(runs: dict[str, tuple[list[dict], str]]) -> str:
    """What each column was in the first and in the last quarter of each run's updates, on average."""
    lines = ["| column | " + " | ".join(f"{name}: first quarter | last" for name in runs) + " |"]
    lines.append("| --- |" + " ---: | ---: |" * len(runs))
    for column in [name for name in runs[next(iter(runs))][0][-1] if name not in ("update", "episodes")]:
        cells = []
        for rows, _ in runs.values():
            values = [row[column] for row in rows if row.get(column) is not None]
            quarter = max(len(values) // 4, 1)
            cells += [f"{sum(part) / quarter:.3g}" for part in (values[:quarter], values[-quarter:])]
        lines.append(f"| {column} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
