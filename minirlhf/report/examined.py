"""The page of `minirlhf examine`: what reward models are worth, side by side; one file that needs nothing else."""

from collections import defaultdict

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from minirlhf.report.figures import PANELS, Panel, can_draw, draw_panel, to_svg
from minirlhf.report.inputs import Inputs, shorten
from minirlhf.report.page import environment
from minirlhf.report.style import FAINT, GREY, INK, PURPLE, label_axes, rows_on_y, whisker
from minirlhf.report.tables import Table, plain_number, with_interval
from minirlhf.report.verdict import percent

OF_A_MODEL = ("calibration", "reward_margins", "gold_margins")  # panels
RULE = "the longer wins"


def accuracies(inputs: Inputs, ax: Axes) -> None:
    """Accuracy of each model and of the rule that the longer wins, above a coin; shaded: what the labels allow."""
    rows = inputs.plots["accuracies"]
    for at, row in enumerate(rows):
        color = GREY if row["name"] == RULE else PURPLE
        whisker(ax, row, at, color)
        ax.annotate(f"{row['value']:.1%}", (row["high"], at), xytext=(6, 0), textcoords="offset points", va="center",
                    fontsize=8, color=color)  # fmt: skip
    for row in inputs.plots["ceiling"]:
        ax.axvspan(row["low"], row["high"], color=FAINT, alpha=0.2, linewidth=0)
    ax.axvline(0.5, color=INK, linewidth=1, zorder=1)
    rows_on_y(ax, [shorten(row["name"]) for row in rows])
    low, high = min(0.45, *(row["low"] for row in rows)), max(row["high"] for row in rows)
    ax.set_xlim(low - 0.02, min(max(high + 0.12, 0.7), 1.13))
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    label_axes(ax, "ordered as the label says", "")


ACCURACIES = Panel(
    "accuracies",
    "Who orders them as the labels do",
    "Share of the comparisons; 95% intervals over posts. The line is a coin. Shaded, where pairs were labelled more "
    "than once: between these bounds lies the most that the labels allow.",
    accuracies,
    "accuracies",
)


def overview(document: dict) -> Table:
    """Every number of every model, and of the rule beside them."""
    models = document["models"]
    longer = document["rules"]["longer"]

    def row(label: str, of, rule: str = "", coin: str = "") -> tuple[str, ...]:
        return (label, *(of(model) or "" for model in models.values()), rule, coin)

    def interval(name: str):
        return lambda model: with_interval(model["intervals"][name], 3)

    rows = [
        row("accuracy", interval("accuracy"), with_interval(longer, 3), "0.500"),
        row("minus that of the longer", lambda m: with_interval(m["minus_longer"], 3)),
        row("share of the way to the labels' ceiling", lambda m: _bounds(m["share_of_the_way"])),
        row("share of the way to the truth's", lambda m: plain_number(m.get("ceiling", {}).get("share_of_the_way"))),
        row("in the truth's order", lambda m: with_interval(m.get("gold", {}).get("model"), 3)),
        row("both scored alike", lambda m: plain_number(m["confidence"]["ties"]), coin="1.000"),
        row("log loss, nats", interval("test_loss"), coin="0.693"),
        row("log loss, rescaled", lambda m: with_interval((m["rescaled"] or {}).get("loss"), 3)),
        row("scale that suits it", lambda m: plain_number((m["rescaled"] or {}).get("scale"))),
        row("Brier score", interval("brier"), coin="0.250"),
        row("expected calibration error", lambda m: plain_number(m["confidence"]["ece"]), coin="0.000"),
        row("prefers the longer", lambda m: with_interval(m["length"]["longer_by_model"], 3), "1.000"),
        row("rank correlation of score and length", lambda m: plain_number(m["length"]["spearman"])),
    ]
    for side in ("first", "second"):
        of = (lambda key: lambda m: with_interval((m["position"] or {}).get(key), 3))(f"accuracy_{side}_chosen")
        rows.append(row(f"accuracy where the {side} shown was chosen", of))
    names = map(shorten, models)
    return Table("Side by side", ("", *names, RULE, "a coin"), [row for row in rows if any(row[1:-2])])


def slices_table(document: dict) -> Table:
    """Accuracy of every model on parts of the comparisons."""
    models = list(document["models"].values())
    rows = []
    for parts in zip(*(model["slices"] for model in models), strict=True):
        name = f"{parts[0]['slice']}: {parts[0]['group']}"
        rows.append((name, f"{parts[0]['count']:,}", *(with_interval(part, 3) for part in parts)))
    return Table("Accuracy on parts of them", ("", "comparisons", *map(shorten, document["models"])), rows)


def differences_table(document: dict) -> Table:
    """Accuracy of one model minus that of another."""
    rows = [
        (f"{shorten(row['one'])} minus {shorten(row['other'])}", with_interval(row, 3), f"{row['alike']:.1%}")
        for row in document["differences"]
    ]
    return Table("Differences in accuracy", ("", "difference", "ordered alike"), rows)


def sentences(document: dict) -> list[str]:
    """What there is to know before the numbers: how many comparisons, which were left out, what the labels are like."""
    refused = ", ".join(f"{count} {reason}" for reason, count in document["refused"].items())
    counts = f"{document['comparisons']:,} comparisons of {document['posts']:,} posts"
    found = [f"{counts}; rows left out: {refused or 'none'}."]
    found += [
        f"{shorten(name)} is right on {percent(model['intervals']['accuracy'])}; "
        + _against(model["minus_longer"], document["rules"]["longer"])
        for name, model in document["models"].items()
    ]
    told, place = document["labels"]["agreement"], document["labels"]["position"]
    if told is None:
        found.append("No pair was labelled twice, so that the most that the labels allow is not known.")
    elif told["ceiling"] is None:
        found.append(
            f"{told['pairs']:,} pairs came again, each with another label: rows that are alike were taken out of these "
            "data, so that the most that the labels allow is not known."
        )
    else:
        low, high = (f"{told['ceiling'][end]:.1%}" for end in ("low", "high"))
        agreed = f"Two labels of one pair agree on {percent(told['agreement'])} ({told['pairs']:,} pairs)"
        found.append(f"{agreed}: nobody can be right on more than {high} of such labels, and somebody on {low}.")
    if place is not None:
        found.append(f"The labels went to the summary that was shown first on {percent(place['first_chosen'])}.")
    return found


def _against(difference: dict, longer: dict) -> str:
    """What a model is worth beside the rule that the longer wins."""
    rule = f"the rule that the longer wins on {percent(longer)}"
    if difference["low"] > 0:
        return f"{rule}, which it beats."
    return f"{rule}, which beats it." if difference["high"] < 0 else f"{rule}, from which it is not to be told apart."


def headline(document: dict) -> str:
    """The best model, and how good it is."""
    best = max(document["models"], key=lambda name: document["models"][name]["accuracy"])
    named = f"{shorten(best)}, the best of {len(document['models'])}," if len(document["models"]) > 1 else shorten(best)
    return f"{named} is right on {document['models'][best]['accuracy']:.1%}"


def write_examined(document: dict) -> str:
    """The page of a document, as `minirlhf examine` writes it beside."""
    models = document["models"]
    accuracy = [{"name": name} | model["intervals"]["accuracy"] for name, model in models.items()]
    accuracy.append({"name": RULE} | document["rules"]["longer"])
    told = document["labels"]["agreement"]
    plots = {"accuracies": accuracy, "ceiling": [told["ceiling"]] if told and told["ceiling"] else []}
    drawn = {"accuracies": _figure(ACCURACIES, "accuracies", Inputs({}, plots, []))}
    keys: dict[str, list[str]] = {}
    for number, (name, model) in enumerate(models.items()):
        inputs = Inputs({}, defaultdict(list, model["tables"]), [])
        panels = [key for key in OF_A_MODEL if can_draw(inputs, key)]
        drawn |= {f"{key}-{number}": _figure(PANELS[key], f"{key}-{number}", inputs) for key in panels}
        keys[name] = [f"{key}-{number}" for key in panels]
    return environment().get_template("examined.html").render(
        name=document["name"],
        headline=headline(document),
        sentences=sentences(document),
        tables={
            "overview": overview(document),
            "differences": differences_table(document),
            "slices": slices_table(document),
        },
        models=keys,
        panels=drawn,
    )  # fmt: skip


def _figure(panel: Panel, key: str, inputs: Inputs) -> dict:
    return {"title": panel.title, "caption": panel.caption, "svg": Markup(to_svg(key, draw_panel(panel, inputs)))}


def _bounds(value: dict | None) -> str:
    return "" if value is None else f"{value['low']:.3f} to {value['high']:.3f}"
