"""What was measured, put together: the metrics, the rows of every CSV file, the summaries to look at."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from minirlhf.evaluation import people, results, tables
from minirlhf.evaluation.examples import choose
from minirlhf.evaluation.measures import Measures, gains, means, variety
from minirlhf.evaluation.pairwise import Verdicts
from minirlhf.evaluation.people import People
from minirlhf.evaluation.temperatures import BestOfN, Choice
from minirlhf.evaluation.winrate import by_post, wins_by_score
from minirlhf.sampling.summaries import Summaries
from minirlhf.settings.evaluation import PEOPLE
from minirlhf.statistics.bootstrap import Bootstrap, rounded

PAIRS = (("ppo", "sft"), ("ppo", "reference"), ("sft", "reference"))
POLICIES = ("sft", "ppo")
SAMPLED, EXTREMES = 20, 10  # posts shown: drawn at random; of the largest gains, and again of the largest losses


@dataclass(frozen=True)
class Measured:
    """Everything that models had to be run for, on B held-out posts.

    Decodings are "best" (each policy at its own best temperature: the headline), "sampled" (at the training one) and
    "greedy"; systems are "reference", "sft" and "ppo".
    """

    posts: Sequence[dict]
    post_tokens: np.ndarray  # [B]
    summaries: dict[str, dict[str, Summaries]]  # decoding -> system -> its summaries
    measures: dict[str, dict[str, Measures]]  # decoding -> system -> measure -> [B]
    choice: Choice
    best_of_n: BestOfN | None
    log_ratios: np.ndarray  # [B] of PPO's sampled summaries under PPO and under SFT, nats
    frontier: list[dict]
    # What the params' judge said of each of PAIRS at "best", where it compares and gives no scores; else empty.
    verdicts: dict[tuple[str, str], Verdicts] = field(default_factory=dict)
    # By the number of an earlier round of feedback: measures of its policy's sampled summaries, log ratios as above.
    rounds: dict[int, tuple[Measures, np.ndarray]] = field(default_factory=dict)
    people: People | None = None  # what people said of the summaries at "best", if they did


@dataclass(frozen=True)
class Findings:
    """What the stage writes: metrics/evaluate.json; in details/ evaluate.json, NAME.csv, summaries.jsonl and .md."""

    headline: dict
    metrics: dict
    plots: dict[str, list[dict]]
    summaries: list[dict]
    page: str


def put_together(
    measured: Measured, judges: dict[str, str], bootstrap: Bootstrap, seed: int, algorithm: str = "PPO"
) -> Findings:
    """Numbers and rows from what was measured.

    Args:
        judges: who judges, the deciding one first, with their names for readers. Each is a measure, but for one that
            compares, whose verdicts are among what was measured.
        seed: of the posts that are shown.
        algorithm: the name for readers of what aligned the policy "ppo".
    """
    decisive, judge_name = next(iter(judges.items()))
    best = measured.measures["best"]
    scoring = next(name for name in judges if name in best["ppo"])
    wins = wins_by_all(measured, judges)
    decided = {pair: wins["best", judge_name, *pair] for pair in PAIRS}
    summaries, shown = {**measured.summaries["sampled"]}, {**measured.measures["sampled"]}
    for decoding, name in itertools.product(("best", "greedy"), POLICIES):
        summaries[f"{name}_{decoding}"] = measured.summaries[decoding][name]
        shown[f"{name}_{decoding}"] = measured.measures[decoding][name]
    difference = best["ppo"][scoring] - best["sft"][scoring]
    gain, between_equals = difference, None
    if scoring != decisive:  # verdicts are few different numbers
        gain, between_equals = 2 * by_post(decided["ppo", "sft"]) - 1, difference.tolist()
    chosen = choose(gain.tolist(), seed, SAMPLED, EXTREMES, between_equals)
    rows = results.summary_rows(measured.posts, summaries, shown, gain, chosen)
    win_rate = {"judge": judge_name, **results.win_rate_metrics(decided, lengths(best), bootstrap)}
    said = {} if measured.people is None else {"people": _people(measured, wins, judges, bootstrap)}
    if scoring != decisive:
        if measured.verdicts:
            win_rate |= results.pairwise_metrics(list(measured.verdicts.values()), bootstrap)
        else:
            win_rate |= results.people_metrics(said["people"])
    metrics = _metrics(measured, win_rate, scoring, bootstrap) | said
    return Findings(
        headline=results.headline(metrics, scoring),
        metrics=metrics,
        plots=_plots(measured, wins, by_post(decided["ppo", "sft"]), bootstrap),
        summaries=rows,
        page=results.summaries_page(rows, scoring, judges[scoring], judge_name, algorithm),
    )


def lengths(systems: dict[str, Measures]) -> dict[str, np.ndarray]:
    """[B] tokens of each system's summaries."""
    return {name: measures["length"] for name, measures in systems.items()}


def wins_by_all(measured: Measured, judges: dict[str, str]) -> dict[tuple[str, str, str, str], np.ndarray]:
    """(decoding, judge's name, system, against) -> wins of everything that was judged: [B], of people [voters, B]."""
    wins = {}
    for decoding, of in measured.measures.items():
        for judge, name in judges.items():
            if judge in of["ppo"]:
                found = {pair: wins_by_score(of[pair[0]][judge], of[pair[1]][judge]) for pair in PAIRS}
            elif decoding != "best":
                found = {}
            elif measured.verdicts:
                found = {pair: told.wins for pair, told in measured.verdicts.items()}
            else:
                found = measured.people.wins
            wins |= {(decoding, name, *pair): won for pair, won in found.items()}
    return wins


def _people(
    measured: Measured, wins: dict[tuple[str, str, str, str], np.ndarray], judges: dict[str, str], bootstrap: Bootstrap
) -> dict:
    """What people said, and next to it what every other judge did, of the summaries at "best"."""
    others: dict[str, dict] = {name: {} for name in judges.values() if name != PEOPLE}
    for (decoding, name, *pair), won in wins.items():
        if decoding == "best" and name in others:
            others[name][tuple(pair)] = won
    told = lengths(measured.measures["best"])
    comparing = {judges["judge"]: list(measured.verdicts.values())} if measured.verdicts else {}
    return people.metrics(measured.people, others, told, comparing, bootstrap)


def _metrics(measured: Measured, win_rate: dict, scoring: str, bootstrap: Bootstrap) -> dict:
    sampled, greedy, best = (measured.measures[decoding] for decoding in ("sampled", "greedy", "best"))
    found = {name: means(values, bootstrap) for name, values in sampled.items()}
    at_best = {name: means(best[name], bootstrap) for name in POLICIES}
    kl = bootstrap.mean(measured.log_ratios)
    with_intervals = {**found, "ppo_minus_sft": gains(sampled["ppo"], sampled["sft"], bootstrap)}
    shown = dict.fromkeys(("reward", scoring))
    rounds = {}
    for number, (values, log_ratios) in measured.rounds.items():
        of_round = means(values, bootstrap) | {"kl": bootstrap.mean(log_ratios)}
        rounds[str(number)] = {key: of_round[key].as_json() for key in (*shown, "kl")}
    return {
        **{name: results.system_metrics(estimates) for name, estimates in found.items()},
        "greedy": {name: results.system_metrics(means(greedy[name], bootstrap)) for name in POLICIES},
        "best": {
            **{
                name: {"temperature": measured.choice.best[name], **results.system_metrics(estimates)}
                for name, estimates in at_best.items()
            },
            "best_of_n": results.best_of_n_metrics(measured.best_of_n, scoring),
        },
        "kl": rounded(kl.value),
        "win_rate": win_rate,
        "posts": len(measured.posts),
        "intervals": {
            "kl": kl.as_json(),
            **{name: {key: e[key].as_json() for key in shown} for name, e in with_intervals.items()},
            "best": {name: {key: e[key].as_json() for key in shown} for name, e in at_best.items()},
        },
        **({"rounds": rounds} if rounds else {}),
    }


def _plots(
    measured: Measured, wins: dict[tuple[str, str, str, str], np.ndarray], decided: np.ndarray, bootstrap: Bootstrap
) -> dict[str, list[dict]]:
    sampled = measured.measures["sampled"]
    found = {name: means(values, bootstrap) for name, values in sampled.items()}
    tokens = {(decoding, name): m["length"] for decoding, of in measured.measures.items() for name, m in of.items()}
    subreddits = [post.get("subreddit") for post in measured.posts]
    return {
        "rewards": tables.histogram(sampled, "reward"),
        "summary_lengths": tables.histogram(sampled, "length"),
        "rouge": tables.rouge_rows(found),
        "measures": tables.measure_rows(
            sampled=found,
            others={
                decoding: {name: means(measured.measures[decoding][name], bootstrap) for name in POLICIES}
                for decoding in ("best", "greedy")
            },
            gained=gains(sampled["ppo"], sampled["sft"], bootstrap),
            varieties={name: variety(summaries) for name, summaries in measured.summaries["sampled"].items()},
        ),
        "gold_parts": tables.gold_part_rows(found),
        "facts": tables.fact_rows(found),
        "win_rates": tables.win_rate_rows(wins, tokens, bootstrap),
        "slices": tables.slice_rows(measured.post_tokens, subreddits, decided, bootstrap),
        "frontier": measured.frontier,
        "temperatures": tables.temperature_rows(measured.choice, bootstrap),
    }
