"""Look at the sources of data and models, and note what they hold: which folder content, which commit of a hub name.

It also removes what rounds of feedback left that the params no longer name.

It runs at every `dvc repro` and is cheap. What depends on a source depends on its note, so that a changed source
reruns exactly that, and an unchanged one nothing.

In:  the names in data, model and reward of the params.
Out: data/sources/{posts,comparisons,base,reward}.json
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's library, also in a temporary one

from minirlhf.feedback.rounds import drop_rounds
from minirlhf.hub.fingerprint import fingerprint
from minirlhf.runtime.files import write_json
from minirlhf.runtime.stage import run
from minirlhf.settings.params import Params, load_params


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--output", type=Path, default=Path("data/sources"), help="folder of the notes")
    args = parser.parse_args(argv)
    params = load_params(args.params)
    drop_rounds(len(params.feedback.rounds))
    for name, note in look(params).items():
        write_json(args.output / f"{name}.json", note)


def look(params: Params) -> dict[str, dict[str, str]]:
    """The fingerprint of each source in the params."""
    data, reward = params.data, params.reward
    notes = {
        "posts": fingerprint(data.posts, data.posts_revision, "dataset"),
        "comparisons": {"kind": "none"},
        "base": fingerprint(params.model.base, params.model.revision, "model"),
        "reward": {"kind": "trained"},
    }
    if data.comparisons is not None:
        notes["comparisons"] = fingerprint(data.comparisons, data.comparisons_revision, "dataset")
    named = reward.base or reward.pretrained
    if named is not None:
        notes["reward"] = fingerprint(named, reward.revision, "model")
    return notes


if __name__ == "__main__":
    run(main)
