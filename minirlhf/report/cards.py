"""Model cards: models/NAME.md beside each model's folder, in the hub's format, from what the stages measured.

https://huggingface.co/docs/hub/model-cards: YAML between two rules, then Markdown. Text that came from the params or
from the names of sources can break neither, and no card holds a date or a place on this machine.
"""

import io
import re
from pathlib import PurePath
from typing import Any

from minirlhf.report.alarms import Check, blindness
from minirlhf.report.inputs import Inputs
from minirlhf.report.tables import MEASURES, Table, flat, probe_table, reward_table, with_interval, without_interval
from minirlhf.report.verdict import number, percent

Settings = dict[str, Any]
Sources = dict[str, dict[str, str]]  # posts, comparisons, base, reward -> its fingerprint (see data/fingerprint.py)
SHIPPED_BASE = "models/base"
POLICY_USE = """from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("models/{name}")
model = AutoModelForCausalLM.from_pretrained("models/{name}")"""
REWARD_USE = """from minirlhf.rewards.model import RewardModel
reward = RewardModel.load("models/reward")
scores = reward(["POST: they hid my tent.\\n\\nTL;DR:"], [" they hid my tent."], ended=[True])"""
PROMPT = (
    "A prompt is `SUBREDDIT: r/...`, `TITLE: ...`, `POST: ...` and `TL;DR:`, with an empty line between each two; what "
    "follows it begins with a space and ends with the tokenizer's end token."
)


def write_cards(
    inputs: Inputs, checks: list[Check], settings: Settings, sources: Sources, versions: dict[str, str]
) -> dict[str, str]:
    """The cards of "sft", "reward" and "ppo", each the text of a Markdown file.

    Args:
        settings: params.yaml as it was read.
        versions: name -> version of what ran.
    """
    embedded = sources["posts"]["kind"] == "embedded"
    limits = {"sft": sft_limits(inputs), "reward": reward_limits(inputs), "ppo": ppo_limits(inputs, checks)}
    what = {
        "sft": ("Supervised policy", "A causal language model, fine-tuned to continue a post with a summary like its "
                f"author's; the loss is on the summary alone. {PROMPT}", ("data", "model", "sft")),
        "reward": ("Reward model", _reward_text(settings, sources), ("reward",)),
        "ppo": (f"{inputs.algorithm} policy", f"The supervised policy, aligned by {inputs.algorithm}, held to it by "
                f"a KL penalty. {PROMPT}", dict.fromkeys(("ppo", inputs.algorithm.lower()))),
    }  # fmt: skip
    cards = {}
    for name, (title, text, sections) in what.items():
        chosen = {key: value for key, value in settings.items() if not isinstance(value, dict) or key in sections}
        if embedded:
            limits[name].append("It knows the few hundred words of the embedded world, and nothing of real posts.")
        limits[name].append("One training seed: the intervals do not cover the variance between seeds.")
        if _license(sources) == "unknown":
            limits[name].append("Its license follows from those of its base and its data, which are not known here.")
        use = REWARD_USE if name == "reward" else POLICY_USE.format(name=name)
        parts = [
            f"---\n{front_matter(_fields(name, settings, sources))}---",
            f"# {title}",
            text,
            "## Use",
            f"```python\n{use}\n```",
            "## Measured",
            "On held-out posts; intervals are 95%."
            + (
                ""
                if name == "reward"
                else f" Summaries were sampled at the training temperature. {at_its_best(inputs, name)}"
            ),
            *(table.markdown() for table in _measured(inputs, name) if table.rows),
            "## Limits",
            "\n".join(f"- {plain(limit)}" for limit in limits[name]),
            "## Made from",
            _made_from(name, settings, sources).markdown(),
            "## Settings",
            Table("", ("setting", "value"), [(key, code(_shown(value))) for key, value in flat(chosen)]).markdown(),
            "## Versions",
            ", ".join(f"{package} {version}" for package, version in versions.items()) + ".",
        ]
        cards[name] = "\n\n".join(parts) + "\n"
    return cards


def front_matter(fields: dict[str, Any]) -> str:
    """Fields as YAML; every text is quoted, so that none is read as anything else by any reader of YAML."""
    from ruamel.yaml import YAML
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString as Quoted

    yaml = YAML()
    yaml.width = 10**6  # a line a value
    buffer = io.StringIO()
    yaml.dump({k: [Quoted(x) for x in v] if isinstance(v, list) else Quoted(v) for k, v in fields.items()}, buffer)
    return buffer.getvalue()


def code(text: str) -> str:
    """Text on one line as Markdown code, however many backticks it holds."""
    text = " ".join(text.split())
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}" if text else ""


def plain(text: str) -> str:
    """Text on one line that Markdown and HTML leave as it is; of an absolute path the last part only.

    >>> plain("by /home/me/judge.py:words,\\n<b>*not*</b> a_link")
    'by judge.py:words, \\\\<b\\\\>\\\\*not\\\\*\\\\</b\\\\> a\\\\_link'
    """
    words = re.sub(r"(?<!\S)[~/]\S*/(?=\S)", "", " ".join(text.split()))
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", words)


def _shown(value: str) -> str:
    """A setting's value without the place of a folder on this machine."""
    return PurePath(value).name if value.startswith(("/", "~")) else value


def _license(sources: Sources) -> str:
    """MIT is the license of this repository, its embedded world and its base model; of others nothing is known."""
    ours = sources["posts"]["kind"] == "embedded" and sources["base"].get("name") == SHIPPED_BASE
    return "mit" if ours and sources["reward"]["kind"] == "trained" else "unknown"


def _fields(name: str, settings: Settings, sources: Sources) -> dict[str, Any]:
    """The card's metadata, for the hub."""
    named = name == "reward" and sources["reward"]["kind"] != "trained"  # what it was trained from, or what it is
    pretrained = named and settings["reward"]["base"] is None
    base = sources["reward" if named else "base"]
    has_weights_of_base = named or settings["model"]["random_weights"] is None
    used = {"sft": ("posts",), "reward": () if pretrained else ("posts", "comparisons")}.get(
        name, ("posts", "comparisons")
    )
    datasets = sorted({sources[key]["name"] for key in used if sources[key]["kind"] == "hub"})
    fields: dict[str, Any] = {
        "license": _license(sources),
        "library_name": "transformers",
        "pipeline_tag": "text-classification" if name == "reward" else "text-generation",
        "tags": ["minirlhf", "summarization", *{"reward": ["reward-model"], "ppo": ["rlhf", "ppo"]}.get(name, [name])],
    }
    if base["kind"] == "hub" and has_weights_of_base:
        fields["base_model"] = base["name"]
    return fields | ({"datasets": datasets} if datasets else {})


def _made_from(name: str, settings: Settings, sources: Sources) -> Table:
    """Base model and data, each at the content that was read."""
    base = _source(sources["base"], settings)
    if settings["model"]["random_weights"] is not None:
        base = f"random weights in the architecture of {base}"
    rows = [("base model", base), ("posts", _source(sources["posts"], settings))]
    if name != "sft":
        rows.append(("comparisons", _source(sources["comparisons"], settings)))
        trained = "trained here, from " * (settings["reward"]["base"] is not None)
        rows.append(("reward model", trained + _source(sources["reward"], settings)))
    return Table("", ("", "content"), rows)


def _source(note: dict[str, str], settings: Settings) -> str:
    kind = note["kind"]
    if kind == "embedded":
        return f"the embedded world, world seed {settings['data']['world_seed']}"
    if kind == "none":
        return "none but people's votes"
    if kind == "trained":
        return "trained here, from the supervised policy"
    place = code(_shown(note.get("name", "")))
    key, text = ("sha256", "with SHA-256") if kind == "folder" else ("commit", "at commit")
    return f"{place} {text} {code(note.get(key, ''))}"


def _reward_text(settings: Settings, sources: Sources) -> str:
    scores = "Scores are centred: those of the authors' training summaries are 0 on average."
    base = settings["reward"]["base"]
    if base is None and sources["reward"]["kind"] != "trained":
        return (
            f"A pretrained sequence classifier, {_source(sources['reward'], settings)}, used as it is. The folder "
            f"holds no weights, only its name and the mean that its scores are centred by. {scores}"
        )
    trunk = "The supervised policy" if base is None else _source(sources["reward"], settings)
    reads = "It reads post and summary as one text, and the end token where the summary ended by itself"
    if base is not None:
        reads = (
            "Its tokenizer is its own. `reward.json` says whether it reads post and summary as a pair or as one text"
        )
    return f"{trunk} with a head that gives one score, trained on comparisons of two summaries. {reads}. {scores}"


def at_its_best(inputs: Inputs, name: str) -> str:
    """The temperature that suits a policy, and what it scores there, in a sentence."""
    temperature = inputs.metrics["evaluate"]["best"][name]["temperature"]
    found = number(inputs.measure(name, inputs.scoring, "best"))
    score = plain(inputs.score_name)
    return (
        f"Its best temperature, chosen on validation posts, is {temperature:g} (0: greedy), with a {score} of {found}."
    )


def _measured(inputs: Inputs, name: str) -> list[Table]:
    if name == "reward":
        return [reward_table(inputs), probe_table(inputs)]
    rows = []
    for measure, (text, decimals) in MEASURES.items():
        row = inputs.measure(name, measure)
        if row is not None:
            gain = inputs.measure("ppo - sft", measure) if name == "ppo" else None
            value = with_interval(row, decimals) or without_interval(row, decimals)
            if measure == "judge":
                text = f"{plain(inputs.score_names[measure])}, in its own units"
            rows.append((text, value, with_interval(gain, decimals))[: 3 if name == "ppo" else 2])
    if name == "sft":
        loss = inputs.metrics["sft"].get("sft_eval_loss")
        rows += [] if loss is None else [("held-out loss, nats a summary token", f"{loss:.3f}")]
        return [Table("", ("", "SFT"), rows)]
    evaluate = inputs.metrics["evaluate"]
    rates = [
        ("KL from the supervised policy, nats", number(evaluate["intervals"]["kl"])),
        *((f"win rate against {against}, by {plain(inputs.judge_title)}", percent(evaluate["win_rate"][key]))
          for against, key in (("SFT", "ppo_vs_sft"), ("the authors", "ppo_vs_reference"))),
    ]  # fmt: skip
    return [
        Table("", ("", inputs.algorithm, f"{inputs.algorithm} minus SFT"), rows),
        Table("", ("", inputs.algorithm), rates),
    ]


def sft_limits(inputs: Inputs) -> list[str]:
    """What the supervised policy's own summaries show."""
    if inputs.compares:
        rate = percent(inputs.metrics["evaluate"]["win_rate"]["sft_vs_reference"])
        found = [f"Its sampled summaries beat the authors' {rate} of the time by {inputs.judge_title}."]
    else:
        own, authors = (inputs.measure(system, inputs.judging) for system in ("sft", "reference"))
        found = [f"Its sampled summaries score {number(own)} by {inputs.judge_title}, the authors' {number(authors)}."]
    wrong = inputs.measure("sft", "gold_wrong")
    if wrong is not None:
        found.append(f"It states {number(wrong)} wrong facts a summary.")
    unended = 1 - inputs.measure("sft", "ended")["value"]
    return found + ([f"{unended:.1%} of its sampled summaries do not end by themselves."] if unended > 0 else [])


def reward_limits(inputs: Inputs) -> list[str]:
    """Which faults the reward model does not see, how often it errs, and whether it likes length."""
    metrics = inputs.metrics["reward"]
    blind = blindness(inputs)
    if blind is None:
        found = ["Which faults it sees is not known: that needs posts with a known truth."]
    elif blind.passed:
        found = ["It sees every fault that it was probed with more often than not; see the table for how often."]
    else:
        found = [f"{blind.name}: a policy that is trained on it is free to do the same. {blind.text}"]
    accuracy = metrics.get("reward_intervals", {}).get("accuracy")
    if accuracy:
        found.append(f"It orders {percent(accuracy)} of held-out comparisons as their annotators did.")
    length = metrics.get("reward_length", {})
    model, annotators = length.get("longer_by_model"), length.get("longer_by_annotators")
    if model and annotators and (model["low"] > annotators["high"] or model["high"] < annotators["low"]):
        often = "more" if model["low"] > annotators["high"] else "less"
        found.append(
            f"It prefers the longer summary {often} often than the annotators: {percent(model)} of the time against "
            f"{percent(annotators)}."
        )
    return found


def ppo_limits(inputs: Inputs, checks: list[Check]) -> list[str]:
    """The alarms of the report."""
    alarms = [f"{check.name}. {check.text}" for check in checks if not check.passed]
    found = alarms or [
        f"None of {len(checks)} signs of a gamed reward was found; what they do not look for may be there."
    ]
    if inputs.judging == "reward":
        found.append("It was judged by the reward that it was trained on, which shows optimization, not quality.")
    return found
