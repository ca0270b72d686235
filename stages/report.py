"""Draw what the other stages measured: pictures, tables, and one page to look at. Trains and generates nothing.

In:  metrics/*.json, plots/*.csv, results/summaries.jsonl, data/sources/*.json, params.yaml (shown on the page).
Out: plots/images (PNG files), results/tables.md, results/report.html, models/{sft,reward,ppo}.md (model cards).
"""

import argparse
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's library, also in a temporary one

from minirlhf.runtime.files import read_json, replace_file, replace_folder
from minirlhf.runtime.stage import quiet, run
from minirlhf.settings.params import load_params

SOURCES = ("posts", "comparisons", "base", "reward")
PACKAGES = ("torch", "transformers", "trl", "datasets", "evaluate", "rouge-score", "numpy")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--metrics", type=Path, default=Path("metrics"), help="folder of the stages' JSON files")
    parser.add_argument("--plots", type=Path, default=Path("plots"), help="folder of the stages' CSV files")
    parser.add_argument("--summaries", type=Path, default=Path("results/summaries.jsonl"))
    parser.add_argument("--images", type=Path, default=Path("plots/images"))
    parser.add_argument("--tables", type=Path, default=Path("results/tables.md"))
    parser.add_argument("--page", type=Path, default=Path("results/report.html"))
    parser.add_argument("--sources", type=Path, default=Path("data/sources"), help="folder of the sources' notes")
    parser.add_argument("--cards", type=Path, default=Path("models"), help="folder for the model cards")
    args = parser.parse_args(argv)
    params = load_params(args.params)

    quiet()
    from minirlhf.report import alarms, cards, figures, page, tables, verdict
    from minirlhf.report.inputs import read_inputs

    inputs = read_inputs(args.metrics, args.plots, args.summaries)
    found, checks = verdict.give_verdict(inputs), alarms.run_checks(inputs)
    settings, versions = params.model_dump(mode="json", exclude={"resume_minutes", "tensorboard"}), installed()
    sources = {name: read_json(args.sources / f"{name}.json") for name in SOURCES}
    panels = figures.draw_panels(inputs)
    texts = {
        args.tables: tables.markdown(inputs, checks, found.sentences),
        args.page: page.write_page(inputs, found, checks, panels, settings, versions),
    }
    for name, card in cards.write_cards(inputs, checks, settings, sources, versions).items():
        texts[args.cards / f"{name}.md"] = card
    with replace_folder(args.images) as folder:
        figures.write_pictures(panels, folder)
    for path, text in texts.items():
        with replace_file(path) as file:
            file.write(text)


def installed() -> dict[str, str]:
    """Versions of Python and of the packages that the numbers depend on; what is not installed is left out."""
    versions = {"Python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


if __name__ == "__main__":
    run(main)
