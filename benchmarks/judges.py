"""Who may judge on real posts: heads on frozen models, learnt on comparisons that the reward has not seen.

    python benchmarks/judges.py --models MINILM SMOLLM2 --data shared/data --work runs/judges

A judge apart is learnt on other comparisons than the reward, and may judge only if it is right on those that the reward
learns from: more often than the longer (or the shorter) summary is, and than one of the two systems that wrote them.
Examined are, by the comparisons of the judge and of the reward:

- each data set as the reward's, the judge learnt on the other one;
- each data set cut in two by post: one half is the judge's, the other the reward's, and the other way round;
- the same with an eighth, a quarter, a half of the judge's posts: what more comparisons would bring.

Heads are logistic regressions on differences of features: of a decoder its state at the last token, of an encoder the
mean over all tokens. Features are kept in --work, so a second run takes seconds. Printed are tables in Markdown; all
intervals draw posts. What `minirlhf examine` says of the heads of the halves goes to --work, a page and a JSON document
a data set.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.examine_real import learn
from benchmarks.runs import markdown
from minirlhf.data.held_out import read_comparisons
from minirlhf.report.examined import overview, sentences, write_examined
from minirlhf.reward_modeling.compare import compare
from minirlhf.reward_modeling.quality import hits, share, sides, summaries_of
from minirlhf.runtime.files import read_jsonl, replace_file, write_json
from minirlhf.runtime.progress import Progress
from minirlhf.runtime.stage import run, set_up
from minirlhf.statistics.bootstrap import Bootstrap

SETS = ("tldr_preference", "tldr_gpt4")
POSTS = "tldr"  # whose authors' summaries are one of the two systems of the first set
MAX_PROMPT = 160  # tokens of a prompt that can be cut, as in profiles/smollm2.yaml
STRENGTHS = (0.001, 0.003, 0.01, 0.03)  # C of the regression, chosen by posts left out of the judge's own
SHARES, DRAWS = (0.125, 0.25, 0.5, 1.0), 5
Features = dict  # summary -> [width]
HEADER = ["model", "judge learnt on", "examined on", "accuracy", "minus the best rule of length",
          "minus that of a system", "may judge"]  # of what `line` gives  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, nargs="+", required=True, help="folders: a decoder, or an encoder")
    parser.add_argument("--data", type=Path, required=True, help=f"folder with {', '.join((*SETS, POSTS))}")
    parser.add_argument("--work", type=Path, required=True, help="folder for features")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of the features")
    parser.add_argument("--limit", type=int, help="comparisons of a split")
    args = parser.parse_args(argv)
    set_up(0, args.threads, "native")
    args.work.mkdir(parents=True, exist_ok=True)
    rows = {name: comparisons(args, name) for name in SETS}
    authors = {row["completion"].strip() for split in ("train", "validation")
               for row in read_jsonl(args.data / POSTS / f"{split}.jsonl")}  # fmt: skip
    table, curve = [], []
    examined: dict[str, dict] = {name: {} for name in SETS}
    for model in args.models:
        known = {name: features(model, name, rows[name], args) for name in SETS}
        for name in SETS:
            [other] = set(SETS) - {name}
            head = head_of(rows[other], known[other])
            table.append(line(model.name, other, name, rows[name], score(known[name], head), authors))
            halves = cut(rows[name])
            scores = {}
            for mine, theirs in (halves, halves[::-1]):
                scores |= {s: value for s, value in score(known[name], head_of(mine, known[name])).items()
                           if s in set(summaries_of(theirs))}  # fmt: skip
            table.append(line(model.name, f"the other half of {name}", name, rows[name], scores, authors))
            examined[name][f"{model.name}, by post"] = scores
            curve.append([model.name, name, *(f"{growth(halves, known[name], part):.3f}" for part in SHARES)])
    print(markdown(HEADER, table))
    print(f"\nAccuracy on the other half by the share of the judge's half, a mean of {DRAWS} draws of posts:\n")
    print(markdown(["model", "comparisons", *(f"{part:.1%}" for part in SHARES)], curve))
    for name, scores in examined.items():
        document = {"name": name, "refused": {}, "changed": {}} | compare(rows[name], scores, Bootstrap(0, 1000))
        write_json(args.work / f"{name}.json", document)
        with replace_file(args.work / f"{name}.html") as file:
            file.write(write_examined(document))
        print("\n".join(["", *sentences(document)]), overview(document).markdown(), sep="\n\n")


def comparisons(args: argparse.Namespace, name: str) -> list[dict]:
    """The comparisons of a data set, those of training first."""
    found = [read_comparisons(str(args.data / name), split, limit=args.limit) for split in ("train", "validation")]
    return [row for part in found for row in part.rows]


def features(folder: Path, name: str, rows: list[dict], args: argparse.Namespace) -> Features:
    """What a head reads of each summary of comparisons, kept in a file."""
    summaries, file = summaries_of(rows), args.work / f"{folder.name}-{name}-{len(rows)}.npy"
    if not file.exists():
        np.save(file, extract(folder, summaries, args.precision))
    return dict(zip(summaries, np.load(file), strict=True))


def extract(folder: Path, summaries: list, precision: str) -> np.ndarray:
    """Features [N, width] of summaries, each after its post of at most MAX_PROMPT tokens."""
    import torch
    from transformers import AutoConfig, AutoModel

    from minirlhf.hub.configs import read_tokenizer
    from minirlhf.models.kernels import use_fast_kernels
    from minirlhf.models.prefixes import last_states
    from minirlhf.text.prompts import encode, encode_prompts
    from minirlhf.text.truncate import truncate_prompt

    tokenizer, model = read_tokenizer(folder), AutoModel.from_pretrained(folder).eval()
    use_fast_kernels(model)

    def count(text: str) -> int:
        return len(encode(tokenizer, text))

    posts: dict[str, list[int]] = {}
    for at, (prompt, _, _) in enumerate(summaries):
        posts.setdefault(prompt, []).append(at)
    found = np.zeros((len(summaries), AutoConfig.from_pretrained(folder).hidden_size))
    bf16 = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    with Progress(len(summaries), "summaries", folder.name) as progress, torch.no_grad(), bf16:
        for prompt, places in posts.items():
            [ids] = encode_prompts(tokenizer, [truncate_prompt(prompt, MAX_PROMPT, count, None) or prompt])
            texts = [encode(tokenizer, summaries[at][1]) for at in places]
            if tokenizer.cls_token_id is None:
                rows = [ids + text + [tokenizer.eos_token_id] for text in texts]
                states = last_states(model, [rows], "cpu")
            else:
                ids = ids[: model.config.max_position_embeddings - 2 - max(map(len, texts))]
                rows = [[tokenizer.cls_token_id, *ids, tokenizer.sep_token_id, *text] for text in texts]
                width = max(map(len, rows))
                padded = torch.tensor([row + [0] * (width - len(row)) for row in rows])
                mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
                kinds = torch.tensor([[0] * (len(ids) + 2) + [1] * (width - len(ids) - 2)] * len(rows))
                hidden = model(input_ids=padded, attention_mask=mask, token_type_ids=kinds).last_hidden_state
                states = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            found[places] = states.float().numpy()
            progress.update(len(places))
    return found


def head_of(rows: list[dict], known: Features) -> np.ndarray:
    """A head [width], its strength chosen on a fifth of the posts."""
    rng = np.random.default_rng(0)
    posts = sorted({row["prompt"] for row in rows})
    left = set(rng.choice(posts, max(1, len(posts) // 5), replace=False))
    inner, outer = ([row for row in rows if (row["prompt"] in left) == side] for side in (False, True))

    def accuracy(strength: float) -> float:
        head = learn(inner, known, strength)
        return float(right(outer, known, head).mean())

    return learn(rows, known, max(STRENGTHS, key=accuracy))


def right(rows: list[dict], known: Features, head: np.ndarray) -> np.ndarray:
    """Whether a head prefers what was chosen, a comparison."""
    return hits([(known[chosen] - known[rejected]) @ head for chosen, rejected in map(sides, rows)])


def score(known: Features, head: np.ndarray) -> dict:
    """What a head gives each summary."""
    return {summary: float(row @ head) for summary, row in known.items()}


def cut(rows: list[dict]) -> tuple[list[dict], list[dict]]:
    """Two halves, no post in both."""
    posts = sorted({row["prompt"] for row in rows})
    first = set(np.random.default_rng(0).permutation(posts)[: len(posts) // 2])
    return [row for row in rows if row["prompt"] in first], [row for row in rows if row["prompt"] not in first]


def growth(halves: tuple[list[dict], list[dict]], known: Features, part: float) -> float:
    """Accuracy on the second half of heads learnt on so much of the first."""
    mine, theirs = halves
    posts, found = sorted({row["prompt"] for row in mine}), []
    for draw in range(DRAWS if part < 1 else 1):
        chosen = set(np.random.default_rng(draw).permutation(posts)[: max(5, round(part * len(posts)))])
        head = head_of([row for row in mine if row["prompt"] in chosen], known)
        found.append(float(right(theirs, known, head).mean()))
    return float(np.mean(found))


def line(model: str, learnt: str, name: str, rows: list[dict], scores: dict, authors: set[str]) -> list[str]:
    """How a judge does beside the rules, paired."""
    bootstrap = Bootstrap(0, 1000)
    correct = hits([scores[chosen] - scores[rejected] for chosen, rejected in map(sides, rows)])
    longer = hits([len(chosen[1].strip()) - len(rejected[1].strip()) for chosen, rejected in map(sides, rows)])
    longer = longer if longer.mean() >= 0.5 else 1 - longer
    against = [correct - longer]
    by = np.array([row["chosen"].strip() in authors for row in rows], float)
    if any(by) and all((row["chosen"].strip() in authors) != (row["rejected"].strip() in authors) for row in rows):
        against.append(correct - (by if by.mean() >= 0.5 else 1 - by))
    found = [share(values, rows, bootstrap).as_json() for values in (correct, *against)]
    cells = [f"{f['value']:.3f} ({f['low']:.3f} to {f['high']:.3f})" for f in found]
    may = "yes" if all(f["low"] > 0 for f in found[1:]) else "no"
    return [model, learnt, name, cells[0], cells[1], cells[2] if len(cells) > 2 else "not known", may]


if __name__ == "__main__":
    run(main)
