"""What the numbers say, in words: did alignment help, how surely, and at what price."""

from dataclasses import dataclass
from typing import Any

from minirlhf.report.inputs import Inputs, Row
from minirlhf.runtime.errors import printable
from minirlhf.settings.evaluation import PEOPLE


@dataclass(frozen=True)
class Verdict:
    """Whether alignment helped: "helped", "hurt", "unclear" or "unjudged"; and sentences with intervals."""

    outcome: str
    headline: str
    sentences: tuple[str, ...]


def give_verdict(inputs: Inputs) -> Verdict:
    """The outcome in two sentences: how much better and how surely; at what price. More on who compared, or voted."""
    metrics, judging = inputs.metrics["evaluate"], inputs.judging
    rate, against_authors = metrics["win_rate"]["ppo_vs_sft"], metrics["win_rate"]["ppo_vs_reference"]
    matched = metrics["win_rate"]["length_controlled"]["ppo_vs_sft"]
    before, after = (inputs.measure(system, inputs.scoring, "best") for system in ("sft", "ppo"))
    temperatures = {name: metrics["best"][name]["temperature"] for name in ("sft", "ppo")}
    outcome = "helped" if rate["low"] > 0.5 else "hurt" if rate["high"] < 0.5 else "unclear"
    headline = {
        "helped": f"{inputs.algorithm} made the summaries better.",
        "hurt": f"{inputs.algorithm} made the summaries worse.",
        "unclear": f"{inputs.algorithm} made no clear difference.",
    }[outcome]
    if judging == "reward":
        outcome, headline = "unjudged", "No judge but the training reward itself: this shows optimization, not quality."
    moved = "rose" if after["value"] > before["value"] else "fell" if after["value"] < before["value"] else "stayed"
    score = "training reward" if inputs.compares else "score"
    posts = metrics["win_rate"].get("posts", metrics["posts"])
    first = (
        f"Each at its own best temperature ({inputs.algorithm} {temperatures['ppo']:g}, SFT {temperatures['sft']:g}), "
        f"{inputs.algorithm}'s summaries of {posts} held-out posts beat those of the SFT policy {percent(rate)} of the "
        f"time and the authors' {percent(against_authors)}, judged by {inputs.judge_title}; the mean {score} {moved} "
        f"from {number(before)} to {number(after)}."
    )
    lengths = [inputs.measure(system, "length", "best")["value"] for system in ("sft", "ppo")]
    sampled = [inputs.measure(system, inputs.scoring) for system in ("sft", "ppo")]
    second = (
        f"At the training temperature it is {number(sampled[0])} and {number(sampled[1])}, and the price "
        f"{number(metrics['intervals']['kl'])} nats of KL from the SFT policy. Summaries went from {lengths[0]:.1f} to "
        f"{lengths[1]:.1f} tokens; with lengths matched the win rate is {percent(matched)}."
    )
    more = (without_training(inputs),) if metrics["best"]["best_of_n"] else ()
    both_orders = inputs.compares and inputs.judge != PEOPLE
    more += (how_it_compared(metrics["win_rate"], inputs.judge_title),) if both_orders else ()
    return Verdict(outcome, headline, (first, second, *more, *people_sentence(inputs)))


def without_training(inputs: Inputs) -> str:
    """What the best of n samples of the SFT policy reach, in a sentence."""
    found = inputs.metrics["evaluate"]["best"]["best_of_n"]
    return (
        f"Without training, the best of {found['n']} of SFT's summaries by the training reward, at their own best "
        f"temperature ({found['temperature']:g}), reach {number(found[inputs.scoring])} on {found['posts']} posts."
    )


def how_it_compared(win_rate: dict, judge: str) -> str:
    """How far the order of showing decided, and what was left unjudged, in a sentence."""
    bias, pairs = win_rate["position_bias"], dict(win_rate["pairs"])
    judged = pairs.pop("judged")
    asked = f"Each pair was shown to {judge} in both orders"
    if bias:
        asked += (
            f", and the mean counts: the verdict was another in the other order on {percent(bias['flipped'])} of the "
            f"pairs, and the summary shown first won {percent(bias['first_place'])}"
        )
    if not pairs:
        return f"{asked}."
    left_out = sum(pairs.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in pairs.items())
    return f"{asked}; {left_out} of {judged + left_out} pairs are left out, for want of a verdict ({reasons})."


def people_sentence(inputs: Inputs) -> tuple[str, ...]:
    """Who voted, and how far they agree, with each other, with themselves and with the training reward."""
    found = inputs.metrics["evaluate"].get("people")
    if found is None:
        return ()
    voters = f"{found['voters']} people" if found["voters"] > 1 else "One person"
    words = [
        f"{voters} gave {found['votes']} votes on {found['posts']} posts ({found['ties']} ties, {found['skips']} skips)"
    ]
    if found["voters"] > 1:
        words.append(f"they agree with each other on {share(found['agreement']['percent'])} of the pairs")
        for name in ("kappa", "alpha"):
            value = found["agreement"].get(name, {})
            if value.get("value") is not None:
                words[-1] += f", {name} {value['value']:.2f} ({value['low']:.2f} to {value['high']:.2f})"
    again = found["consistency"]
    if again["pairs"]:
        words.append(f"with themselves on {share(again['percent'])} of {again['pairs']} pairs that came again")
    reward = found["judges"]["training reward"]["agreement"]
    words.append(f"the training reward agrees with their votes on {share(reward)}")
    return ("; ".join(words) + ".",)


def share(value: dict[str, Any] | None) -> str:
    """A share with its interval, or why there is none."""
    if value is None:
        return ""
    return percent(value) if value["value"] is not None else f"(not known: {printable(value['why'])})"


def percent(row: Row) -> str:
    """A share with its interval: 81% (77% to 84%)."""
    return f"{row['value']:.0%} ({row['low']:.0%} to {row['high']:.0%})"


def number(row: Row) -> str:
    """A value with its interval: 5.43 (5.32 to 5.54)."""
    return f"{row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
