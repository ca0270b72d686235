"""The table of runs on Reddit posts: a run's rows are kept as it ends, and put together.

    python benchmarks/real_text_table.py --add . --minutes 61     # what the pipeline made in a folder, after dvc repro
    python benchmarks/real_text_table.py                          # docs/real_text.png, and tables in Markdown

Kept are, with the method and the seed of each run:

- benchmarks/real_text_runs.csv: what evaluate found of a system, each policy at its own best temperature
- benchmarks/real_text_posts.csv: of each held-out post who won, by the judge apart and by the training reward
- benchmarks/real_text_curves.csv: PPO's updates
- benchmarks/real_text_path.csv: scores of the first held-out posts at each snapshot of PPO, at the training temperature

All intervals draw posts; of several runs each post has the mean over them, so an interval says how sure the mean of
these runs is on other posts, not on other runs: those stand one by one.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.runs import append, interval, markdown, rows_of
from minirlhf.evaluation.winrate import wins_by_score
from minirlhf.runtime.files import read_jsonl, read_object
from minirlhf.settings.params import load_params
from minirlhf.statistics.bootstrap import Bootstrap

HERE = Path(__file__).resolve().parent
RUNS, POSTS, CURVES, PATH = (HERE / f"real_text_{name}.csv" for name in ("runs", "posts", "curves", "path"))
PICTURE = HERE.parent / "docs" / "real_text.png"
PANELS = {  # of the picture: column -> unit; the first two are of held-out posts, the others of PPO's updates
    "proxy": "training reward, held-out posts",
    "gold": "the judge's score, held-out posts",
    "kl": "KL from SFT, nats",
    "length": "length, tokens",
}
PRESENT = "ppo"  # the method whose training reward, author and SFT the tables and the picture show
MEASURES = ("reward", "judge", "rougeL", "length", "ended", "coverage", "title", "repetition")
RUN_COLUMNS = ("method", "seed", "system", "temperature", "posts", *MEASURES, "question", "opening", "kl", "minutes")
SAME = {"sampled": "", "greedy": "_greedy"}  # both decoded alike: at the training temperature, greedily
POST_COLUMNS = ("method", "seed", "post", "judge", *SAME, "reward", "gained", "author")
CURVE_COLUMNS = ("method", "seed", "update", "episodes", "reward", "kl", "length", "ended", "entropy")
PATH_COLUMNS = ("method", "seed", "episodes", "proxy", "gold")
# What the tables show, and how.
FIGURES = {"reward": ".2f", "kl": ".1f", "rougeL": ".3f", "length": ".1f", "title": ".1%", "minutes": ".0f"}
WON = {"judge": ".0%", "sampled": ".0%", "greedy": ".0%", "reward": ".0%", "gained": ".2f", "author": ".0%"}
HABITS = ("ended", "question", "opening", "coverage", "repetition")
# name here -> policy and decoding in measures.csv, name in summaries.jsonl
SYSTEMS = {
    "author": ("reference", "sampled", "reference"),
    "sft": ("sft", "best", "sft_best"),
    "aligned": ("ppo", "best", "ppo_best"),
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", type=Path, help="the folder of a run that ended")
    parser.add_argument("--minutes", type=float, help="that its training by this method took")
    parser.add_argument("--method", help="what to call it, if not by params.algorithm")
    args = parser.parse_args(argv)
    if args.add:
        add(args.add, args.minutes, args.method)
    else:
        print(tables(rows_of(RUNS), rows_of(POSTS)))
        draw(*([row for row in rows_of(file) if row["method"] == PRESENT] for file in (CURVES, PATH)))


def add(folder: Path, minutes: float | None, method: str | None) -> None:
    """Keep the rows of a run."""
    params = load_params(folder / "params.yaml")
    run = {"method": method or params.algorithm, "seed": params.seed if params.ppo_seed is None else params.ppo_seed}
    found = read_object(folder / "details/evaluate.json")
    summaries = read_jsonl(folder / "details/summaries.jsonl")
    measured = {(row["decoding"], row["system"], row["measure"]): float(row["value"])
                for row in rows_of(folder / "details/measures.csv")}  # fmt: skip
    rows = []
    for system, (policy, decoding, name) in SYSTEMS.items():
        ours = system == "aligned"
        temperature = found["best"][policy]["temperature"] if decoding == "best" else ""
        kl = found["kl"] if ours else ""
        means = {measure: measured[decoding, policy, measure] for measure in MEASURES}
        texts = [row[name]["summary"] for row in summaries]
        rows.append(row_of(run, system, temperature, kl, minutes if ours else "", means, texts))
    append(RUNS, RUN_COLUMNS, rows)
    same = {name: wins_by_score(*(scores["judge"] for scores in scores_of(summaries, f"ppo{of}", f"sft{of}")))
            for name, of in SAME.items()}  # fmt: skip
    append(POSTS, POST_COLUMNS, posts_of(run, *scores_of(summaries, "ppo_best", "sft_best", "reference"), same))
    if params.algorithm == "ppo":
        updates = [row for row in rows_of(folder / "details/ppo.csv") if row["reward"]]
        append(CURVES, CURVE_COLUMNS, ({name: (run | row)[name] for name in CURVE_COLUMNS} for row in updates))
        path = [row for row in rows_of(folder / "details/frontier.csv") if row["method"] == "ppo"]
        append(PATH, PATH_COLUMNS, (run | {"episodes": row["point"], "proxy": row["proxy"], "gold": row["gold"]}
                                    for row in path))  # fmt: skip


def row_of(run: dict, system: str, temperature, kl, minutes, means: dict[str, float], texts: list[str]) -> dict:
    """The row of a system: of `means` those of MEASURES."""
    openings = Counter(" ".join(text.split()[:2]).lower() for text in texts)
    habits = {"question": np.mean([text.strip().endswith("?") for text in texts]),
              "opening": max(openings.values()) / len(texts)}  # fmt: skip
    row = run | {"system": system, "temperature": temperature, "posts": len(texts), "kl": kl, "minutes": minutes}
    return row | habits | {name: means[name] for name in MEASURES}


def scores_of(summaries: list[dict], *names: str) -> list[dict[str, np.ndarray]]:
    """Of each of these systems in a summaries.jsonl, [posts] scores by the judge apart and by the training reward."""
    return [{key: np.array([row[name][key] for row in summaries]) for key in ("judge", "reward")} for name in names]


def posts_of(run: dict, after: dict, before: dict, author: dict, same: dict | None = None) -> list[dict]:
    """A row a post: what an aligned policy won against SFT, and against the author.

    `after`, `before` and `author` are of `scores_of`; `same` is what was won by the judge where both are decoded alike.
    """
    won = {key: wins_by_score(after[key], before[key]) for key in ("judge", "reward")}
    won |= {"author": wins_by_score(after["judge"], author["judge"]), "gained": after["reward"] - before["reward"]}
    won |= same or {name: [""] * len(won["gained"]) for name in SAME}
    return [run | {"post": at} | {key: won[key][at] for key in won} for at in range(len(after["judge"]))]


def tables(runs: list[dict], posts: list[dict]) -> str:
    """Of each system what all its runs say, then each run, then what the summaries are like, in Markdown."""
    of_systems, of_runs, of_summaries = [], [], []
    for name, rows, said in _systems(runs, posts):
        seeds = "" if name in ("author", "SFT") else str(len({row["seed"] for row in rows}))  # one SFT for all runs
        pooled = [_pooled(said, key, ".0%") for key in ("judge", *SAME, "reward")]
        of_systems.append([name, seeds, *pooled, *(_mean(rows, key, form) for key, form in FIGURES.items())])
        of_summaries.append([name, *(_mean(rows, key, ".1%") for key in HABITS)])
        for row in rows if said else ():
            mine = [post for post in said if post["seed"] == row["seed"]]
            pooled = [_pooled(mine, key, form) for key, form in WON.items()]
            of_runs.append([name, row["seed"], f"{float(row['temperature']):g}", *pooled, _mean([row], "kl", ".1f")])
    beats = [
        "beats SFT, by the judge apart",
        "both at the training temperature",
        "both greedy",
        "by the training reward",
    ]
    figures = ["reward", "KL, nats", "ROUGE-L", "tokens", "copies the title", "minutes"]
    won = [*beats, "reward gained", "beats the author, by the judge apart", "KL, nats"]
    habits = ["ends by itself", "ends in a question mark", "has the commonest beginning", "words copied from the post"]
    return "\n\n".join([
        markdown(["policy", "seeds", *beats, *figures], of_systems),
        markdown(["policy", "seed", "its best temperature", *won], of_runs),
        markdown(["policy", *habits, "words repeated"], of_summaries),
    ])  # fmt: skip


def _systems(runs: list[dict], posts: list[dict]) -> list[tuple[str, list[dict], list[dict]]]:
    """(name, its rows of runs, its rows of posts) of each system."""
    before = [row for row in runs if row["method"] == PRESENT]
    found = [("author", [row for row in before if row["system"] == "author"], [])]
    found.append(("SFT", [row for row in before if row["system"] == "sft"], []))
    for method in sorted(dict.fromkeys(row["method"] for row in runs), key=lambda method: method != PRESENT):
        mine = [row for row in runs if (row["system"], row["method"]) == ("aligned", method)]
        name = method if " " in method else method.upper()
        found.append((name, mine, [row for row in posts if row["method"] == method]))
    return found


def draw(updates: list[dict], path: list[dict]) -> None:
    """PPO's curves, a line a run."""
    import matplotlib
    from matplotlib.figure import Figure

    from minirlhf.report.style import BLUE, GREEN, ORANGE, PURPLE, RC, label_axes

    colors = dict(zip(dict.fromkeys(row["seed"] for row in updates), (BLUE, ORANGE, GREEN, PURPLE), strict=False))
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(12.5, 3), layout="constrained")
        for ax, (column, unit) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
            rows, marker = (path, "o") if column in PATH_COLUMNS else (updates, "")
            for seed, color in colors.items():
                mine = [(int(row["episodes"]), float(row[column])) for row in rows if row["seed"] == seed]
                ax.plot(*zip(*mine, strict=True), color=color, marker=marker, markersize=4, label=f"seed {seed}")
            label_axes(ax, "episodes", unit)
        figure.axes[0].legend(frameon=False)
        figure.savefig(PICTURE, dpi=110, metadata={"Software": None})


def _mean(rows: list[dict], name: str, form: str) -> str:
    values = [float(row[name]) for row in rows if row[name]]
    return f"{np.mean(values):{form}}" if values else ""


def _pooled(rows: list[dict], name: str, form: str) -> str:
    """The mean over runs of each post, with an interval over posts; nothing where there are no runs."""
    rows = [row for row in rows if row[name]]
    if not rows:
        return ""
    by_post = [[float(row[name]) for row in rows if row["post"] == post] for post in {row["post"]: 0 for row in rows}]
    return interval(Bootstrap(0, 1000).mean(np.mean(by_post, axis=1)), form)


if __name__ == "__main__":
    main()
