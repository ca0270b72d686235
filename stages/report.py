"""Draw what the other stages measured: pictures, tables, and one page to look at. Trains and generates nothing.

In:  details/ (what the stages measured), metrics/seeds.csv, data/sources/*.json, params.yaml (shown on the page).
Out: plots/images (PNG files), results/report.html, tables.md, summaries.md; models/{sft,reward,ppo}.md (model cards);
     and of details/ a copy that git keeps: plots/*.csv, results/*.jsonl, results/details/*.json.
"""

import argparse
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's library, also in a temporary one

from minirlhf.runtime.files import read_json, read_text, replace_file, replace_folder
from minirlhf.runtime.stage import quiet, run
from minirlhf.settings.params import load_params

SOURCES = ("posts", "comparisons", "base", "reward")
PACKAGES = ("torch", "transformers", "trl", "datasets", "evaluate", "rouge-score", "numpy")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--details", type=Path, default=Path("details"), help="folder of what the stages measured")
    parser.add_argument("--seeds", type=Path, default=Path("metrics/seeds.csv"), help="table of training seeds")
    parser.add_argument("--plots", type=Path, default=Path("plots"), help="folder for pictures and their data")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder for page, tables and details")
    parser.add_argument("--sources", type=Path, default=Path("data/sources"), help="folder of the sources' notes")
    parser.add_argument("--cards", type=Path, default=Path("models"), help="folder for the model cards")
    args = parser.parse_args(argv)
    params = load_params(args.params)

    quiet()
    from minirlhf.report import alarms, cards, figures, page, tables, verdict
    from minirlhf.report.inputs import read_inputs

    inputs = read_inputs(args.details, args.seeds)
    found, checks = verdict.give_verdict(inputs), alarms.run_checks(inputs)
    settings, versions = params.model_dump(mode="json", exclude={"resume_minutes", "trackers"}), installed()
    sources = {name: read_json(args.sources / f"{name}.json") for name in SOURCES}
    panels = figures.draw_panels(inputs)
    texts = {
        "tables.md": tables.markdown(inputs, checks, found.sentences),
        "report.html": page.write_page(inputs, found, checks, panels, settings, versions),
        "summaries.md": read_text(args.details / "summaries.md"),
    }
    written = cards.write_cards(inputs, checks, settings, sources, versions)
    with replace_folder(args.plots) as folder:
        copy(args.details, folder, "*.csv")
        (folder / "images").mkdir()
        figures.write_pictures(panels, folder / "images")
    with replace_folder(args.results) as folder:
        write_texts(folder, texts)
        copy(args.details, folder, "*.jsonl")
        (folder / "details").mkdir()
        copy(args.details, folder / "details", "*.json")
    write_texts(args.cards, {f"{name}.md": card for name, card in written.items()})


def copy(source: Path, target: Path, pattern: str) -> None:
    """Copy files of a folder: their contents alone, since what comes from DVC's cache may be read-only."""
    for file in sorted(source.glob(pattern)):
        shutil.copyfile(file, target / file.name)


def write_texts(folder: Path, texts: dict[str, str]) -> None:
    """Write files by their names."""
    for name, text in texts.items():
        with replace_file(folder / name) as file:
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
