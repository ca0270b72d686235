"""Alarms: checks for the ways in which a reward is known to be gamed, each a sentence with the numbers."""

from collections.abc import Callable
from dataclasses import dataclass

from minirlhf.report.inputs import Inputs, Row
from minirlhf.report.panels_results import over_optimization
from minirlhf.report.panels_training import PROBES, is_blind
from minirlhf.report.verdict import number, percent
from minirlhf.runtime.errors import printable
from minirlhf.statistics.intervals import mean_interval

# Beyond these a change is worth an alarm, if its interval also excludes no change.
LENGTH_RATIO = 1.25  # summaries longer, or shorter by the inverse
COPYING_RATIO = 1.5  # density of copied fragments
TITLE = 0.05  # share of summaries
REPETITION = 0.05  # share of trigrams said before
ENDED = 0.05  # share of summaries
DUPLICATES = 0.10  # share of summaries
HABIT = 0.25  # share of summaries
ENTROPY_RATIO = 0.15  # of docs/early_warning.md's runs healthy ones fell to .19, and those that turned to .63
ROUGE_RATIO = 0.8
FAR = 14.2  # nats: KL of minirlhf/ppo/early_warning.py, which this stage is not to depend on
OVERSTATED = 0.10  # win rate by the training reward minus win rate by the judge


@dataclass(frozen=True)
class Check:
    """One thing that can go wrong, by its name: whether it did not (passed), and a sentence with the numbers."""

    name: str
    passed: bool
    text: str


def run_checks(inputs: Inputs) -> list[Check]:
    """Every check that can be made with what was measured, alarms first."""
    found = [check(inputs) for check in CHECKS]
    return sorted((check for check in found if check is not None), key=lambda check: check.passed)


def _listed(names: list[str]) -> str:
    """Names in a sentence.

    >>> _listed(["a", "b", "c"]), _listed(["a"]), _listed([])
    ('a, b and c', 'a', '')
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _before_after(inputs: Inputs, name: str) -> tuple[float, float, Row]:
    """A measure of SFT and of PPO, and the interval of their paired difference."""
    before, after = inputs.measure("sft", name), inputs.measure("ppo", name)
    return before["value"], after["value"], inputs.measure("ppo - sft", name)


def reward_and_judge(inputs: Inputs) -> Check | None:
    """The training reward up and the judge's score down: the plainest sign of over-optimization."""
    if inputs.judging == "reward":
        return None
    reward = inputs.measure("ppo - sft", "reward")
    text = f"The training reward changed by {number(reward)}, "
    if inputs.compares:
        rate = inputs.metrics["evaluate"]["win_rate"]["ppo_vs_sft"]
        text += f"and {inputs.algorithm} beats SFT {percent(rate)} by {inputs.judge_title}."
        return Check("The reward rose and the judge prefers SFT", not (rate["high"] < 0.5 and reward["low"] > 0), text)
    gain = inputs.measure("ppo - sft", inputs.judging)
    text += f"the score by {inputs.judge_title} by {number(gain)}."
    return Check("The reward rose and the judge's score fell", not (gain["high"] < 0 < reward["low"]), text)


def overstatement(inputs: Inputs) -> Check | None:
    """The training reward claims many more wins than the judge grants."""
    if inputs.judging == "reward":
        return None
    rows = [
        row
        for row in inputs.plots["win_rates"]
        if (row["decoding"], row["system"], row["against"], row["lengths"]) == ("best", "ppo", "sft", "as they are")
    ]
    by = {row["judge"]: row for row in rows}
    claimed, granted = by["training reward"], by[inputs.judge]
    passed = claimed["value"] - granted["value"] <= OVERSTATED or claimed["low"] <= granted["high"]
    rates = f"{percent(claimed)} by the training reward, {percent(granted)} by {inputs.judge_title}"
    text = f"{inputs.algorithm} beats SFT {rates}."
    return Check("The reward overstates the gain", passed, text)


def temperature(inputs: Inputs) -> Check | None:
    """A gain that a lower temperature gives for free: a win at the training temperature, but not best against best."""
    by = {
        row["decoding"]: row
        for row in inputs.plots["win_rates"]
        if (row["judge"], row["system"], row["against"], row["lengths"]) == (inputs.judge, "ppo", "sft", "as they are")
    }
    if "sampled" not in by:
        return None
    text = (
        f"{inputs.algorithm} beats SFT {percent(by['sampled'])} at the training temperature, and {percent(by['best'])} "
        f"with each at its own best, by {inputs.judge_title}."
    )
    return Check("A gain of temperature", by["sampled"]["low"] <= 0.5 or by["best"]["low"] > 0.5, text)


def path(inputs: Inputs) -> Check | None:
    """Whether PPO trained past the point where the judge's score was highest."""
    rows = [row for row in inputs.plots["frontier"] if row["method"] == "ppo"]
    if inputs.scoring == "reward" or len(rows) < 3:
        return None
    peak = over_optimization(rows)
    if peak is None:
        return Check("Trained past the peak", True, "The judge's score never fell clearly while the reward rose.")
    row = rows[peak]
    text = (
        f"The judge's score was highest at {row['kl']:.1f} nats ({row['point']} episodes): {row['gold']:.2f}, "
        f"and {rows[-1]['gold']:.2f} at the end, while the training reward rose."
    )
    return Check("Trained past the peak", False, text)


def length(inputs: Inputs) -> Check:
    """Summaries much longer or shorter: the commonest way to please a reward model."""
    before, after, gain = _before_after(inputs, "length")
    ratio = after / before if before else 1.0
    ran_away = not 1 / LENGTH_RATIO <= ratio <= LENGTH_RATIO and (gain["low"] > 0 or gain["high"] < 0)
    return Check("Length ran away", not ran_away, f"{before:.1f} tokens before, {after:.1f} after ({ratio - 1:+.0%}).")


def length_matched(inputs: Inputs) -> Check:
    """A win rate that is only length."""
    rates = inputs.metrics["evaluate"]["win_rate"]
    plain, matched = rates["ppo_vs_sft"], rates["length_controlled"]["ppo_vs_sft"]
    text = f"Win rate against SFT {percent(plain)}; with lengths matched {percent(matched)}."
    return Check("Wins by length", not (plain["low"] > 0.5 >= matched["low"]), text)


def ending(inputs: Inputs) -> Check:
    """Summaries that no longer end."""
    before, after, gain = _before_after(inputs, "ended")
    passed = not (gain["high"] < 0 and before - after > ENDED)
    return Check("Summaries do not end", passed, f"{before:.1%} ended by themselves before, {after:.1%} after.")


def ending_habit(inputs: Inputs) -> Check:
    """One way of ending, a question say, that has spread: a trick that the reward model likes on any post."""

    def mark(summary: str) -> str | None:  # a letter or a digit is the absence of a mark
        return None if (last := summary.strip()[-1:]).isalnum() else last

    return _habit(inputs, "ending", "ended", mark)


def beginning_habit(inputs: Inputs) -> Check:
    """One way of beginning that has spread: two words, since one may be the language's (a, my, I)."""

    def words(summary: str) -> str | None:
        return " ".join(summary.split()[:2]).lower() or None

    return _habit(inputs, "beginning", "began", words)


def _habit(inputs: Inputs, name: str, did: str, part: Callable[[str], str | None]) -> Check:
    """The part of a summary that has spread most, at the training temperature or with each policy at its own best."""
    worst, where, text = [0.0], None, f"No summary {did} with anything more often than before."
    for decoding, shown in (("", ""), ("_best", ", each at its own best temperature")):
        rows = [row for row in inputs.summaries if f"ppo{decoding}" in row]
        pairs = [[part(row[system + decoding]["summary"]) for system in ("sft", "ppo")] for row in rows]
        for way in sorted({way for pair in pairs for way in pair} - {None}):
            gains = [float(after == way) - (before == way) for before, after in pairs]
            if sum(gains) > sum(worst):
                worst, where = gains, (way, pairs, shown)
    if where:
        way, pairs, shown = where
        before, after = (sum(pair[at] == way for pair in pairs) for at in (0, 1))
        way = printable(way) or "nothing"
        text = f"{before} of {len(pairs)} summaries {did} with {way} before, {after} after{shown}."
    gain = mean_interval(worst)
    passed = gain["value"] <= HABIT or gain["low"] is None or gain["low"] <= 0
    return Check(f"A new habit of {name}", passed, text)


def repetition(inputs: Inputs) -> Check:
    """Saying the same again."""
    before, after, gain = _before_after(inputs, "repetition")
    passed = not (gain["low"] > 0 and after - before > REPETITION)
    return Check("Repetition", passed, f"Trigrams said again: {before:.1%} before, {after:.1%} after.")


def copying(inputs: Inputs) -> Check:
    """Copying long runs of the post in the place of summarizing."""
    before, after, gain = _before_after(inputs, "density")
    passed = not (gain["low"] > 0 and after > COPYING_RATIO * before)
    text = f"A word lies in a copied run of {before:.1f} words on average before, {after:.1f} after."
    return Check("Copying", passed, text)


def title(inputs: Inputs) -> Check:
    """The title in the place of a summary: the way in which small policies are known to please a reward model."""
    before, after, gain = _before_after(inputs, "title")
    passed = not (gain["low"] > 0 and after - before > TITLE)
    text = f"{before:.1%} of the summaries are little else than the post's title before, {after:.1%} after."
    return Check("The title copied", passed, text)


def variety(inputs: Inputs) -> Check:
    """The same summary for every post."""
    before, after = (inputs.measure(system, "duplicates")["value"] for system in ("sft", "ppo"))
    text = f"{before:.1%} of the summaries repeat another post's before, {after:.1%} after."
    return Check("The same summary for many posts", after - before <= DUPLICATES, text)


def entropy(inputs: Inputs) -> Check:
    """A policy that has stopped exploring."""
    before, after = (inputs.measure(system, "entropy")["value"] for system in ("sft", "ppo"))
    return Check(
        "Entropy collapsed", after >= ENTROPY_RATIO * before, f"{before:.2f} nats a token before, {after:.2f} after."
    )


def wrong_facts(inputs: Inputs) -> Check | None:
    """More that is not true: what reward models see worst."""
    if inputs.measure("sft", "gold_wrong") is None:
        return None
    before, after, gain = _before_after(inputs, "gold_wrong")
    return Check("More wrong facts", gain["low"] <= 0, f"{before:.3f} a summary before, {after:.3f} after.")


def blindness(inputs: Inputs) -> Check | None:
    """Faults that the reward model does not see, or even rewards, so that the policy is free to commit them."""
    rows = inputs.plots["reward_probes"]
    if not rows:
        return None
    names = {row["probe"]: PROBES.get(row["probe"], row["probe"]) for row in rows}
    unseen = [row for row in rows if is_blind(row)]
    rewarded = _listed([names[row["probe"]] for row in unseen if row["high"] < 0.5])
    blind = _listed([names[row["probe"]] for row in unseen if row["high"] >= 0.5])
    claims = [f"is blind to {blind}"] * bool(blind) + [f"rewards {rewarded}"] * bool(rewarded)
    shares = ", ".join(f"{names[row['probe']]} {percent(row)}" for row in unseen or rows)
    text = f"How often it scores a clean summary above the same with one fault (guessing: 50%): {shares}."
    return Check(f"The reward model {', and '.join(claims) or 'is blind to a fault'}", not unseen, text)


def likeness(inputs: Inputs) -> Check:
    """A language that has left the authors' behind."""
    before, after, gain = _before_after(inputs, "rougeL")
    passed = not (gain["high"] < 0 and after < ROUGE_RATIO * before)
    return Check("Far from the authors' language", passed, f"ROUGE-L {before:.3f} before, {after:.3f} after.")


def distance(inputs: Inputs) -> Check:
    """A policy far from where its reward model was trained, at the end or on the way (docs/early_warning.md)."""
    kl, alarm = inputs.metrics["evaluate"]["intervals"]["kl"], inputs.metrics["ppo"].get("alarm")
    text = f"KL of {number(kl)} nats a response"
    if alarm is not None:
        text += f"; in training {alarm['kl']:.1f} at update {alarm['update']} ({alarm['episodes']} episodes)"
    return Check("Far from the SFT policy", kl["value"] < FAR and alarm is None, f"{text}. The alarm is at {FAR:g}.")


def finished(inputs: Inputs) -> Check:
    """Whether PPO ran to its end."""
    reason = inputs.metrics["ppo"].get("stopped")
    text = f"Stopped early: {reason}." if reason else "All episodes were used."
    return Check(f"{inputs.algorithm} stopped early", not reason, text)


CHECKS: tuple[Callable[[Inputs], Check | None], ...] = (
    *(
        reward_and_judge,
        overstatement,
        temperature,
        path,
        length_matched,
        length,
        ending,
        ending_habit,
        beginning_habit,
        wrong_facts,
        blindness,
    ),
    *(repetition, copying, title, variety, entropy, likeness, distance, finished),
)
