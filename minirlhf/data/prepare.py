"""Prepare posts and comparisons: read, clean, cut to length, split, and say what became of every row."""

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minirlhf.data.clean import Cleaner, Tally
from minirlhf.data.files import SPLITS
from minirlhf.data.sources import Source
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import replace_folder, write_jsonl

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from minirlhf.settings.data import DataParams

BINS = 32  # of a histogram
Tallies = dict[str, dict[str, Tally]]  # "posts" or "comparisons" -> split -> tally


def prepare(sources: list[Source], data: "DataParams", tokenizer: "PreTrainedTokenizerBase", output: Path) -> Tallies:
    """Write `output/{posts,comparisons}/{train,validation,test}.jsonl`; posts come first in `sources`.

    No split shares a prompt with an earlier one of its source, and no comparison to train on has the prompt of a test
    post: such rows are refused as held_out.

    Raises:
        UserError: a source cannot be read, or a split of it has no row that can be used.
    """
    tallies: Tallies = {}
    prompts: dict[tuple[str, str], set[bytes]] = {}
    for source in sources:
        limits = (data.max_prompt_tokens, data.max_response_tokens, data.body)
        cleaner = Cleaner(tokenizer, source.columns, *limits, name=f"data.{source.what}: {source.name}")
        tallies[source.what] = {split: Tally() for split in SPLITS}
        with replace_folder(output / source.what) as folder:
            for split in SPLITS:
                tally = tallies[source.what][split]
                own = [key for key in prompts if key[0] == source.what]
                others = [("posts", "test")] if (source.what, split) == ("comparisons", "train") else []
                excluded = set().union(*(prompts.get(key, set()) for key in own + others))
                found = prompts[source.what, split] = set()
                rows = cleaner.clean(source.rows(split), source.limit(split), excluded, found, tally)
                write_jsonl(folder / f"{split}.jsonl", rows)
                if not tally.kept:
                    raise UserError(f"{cleaner.name}: {_why_empty(split, tally, cleaner.columns)}")
            _check_alike(tallies, cleaner.name)
    return tallies


def _check_alike(tallies: Tallies, name: str) -> None:
    """Raise UserError where one source has chats and the other texts: a policy learns to answer one of them."""
    kinds = ["chats" if any(tally.chats for tally in splits.values()) else "texts" for splits in tallies.values()]
    if len(set(kinds)) > 1:
        raise UserError(f"{name}: they are {kinds[1]}, and the posts are {kinds[0]}: give both alike")


def _why_empty(split: str, tally: Tally, columns: tuple[str, ...]) -> str:
    if not tally.refused:
        return f"the {split} split is empty"
    if set(tally.refused) == {"missing_field"}:
        missing = [column for column in columns if column not in tally.columns]
        return f"no {', '.join(missing) or 'value'} in the {split} split: its columns are {', '.join(tally.columns)}"
    why = f"no usable row in the {split} split: refused {describe(tally.refused)}"
    if set(tally.refused) == {"mistyped_field"}:
        return f"{why}: its columns are {', '.join(f'{name} ({kind})' for name, kind in tally.columns.items())}"
    return why


def describe(counts: dict[str, int]) -> str:
    """Counts by reason in words: "3 empty_prompt, 1 over_long", or "none"."""
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items())) or "none"


def summarize(tallies: Tallies) -> dict[str, Any]:
    """The metrics: by source and split rows kept, cut, refused and put right by reason; of train the lengths in
    tokens and, of comparisons, how many summaries a post has."""
    return {
        what: {
            **{
                split: {
                    "kept": tally.kept,
                    "truncated": tally.truncated,
                    "refused": dict(sorted(tally.refused.items())),
                    "changed": dict(sorted(tally.changed.items())),
                }
                for split, tally in splits.items()
            },
            "tokens": {column: _quantiles(lengths) for column, lengths in splits["train"].tokens.items()},
            **_compared(splits["train"]),
        }
        for what, splits in tallies.items()
    }


def _compared(tally: Tally) -> dict[str, Any]:
    of_posts = [len(summaries) for summaries in tally.summaries.values()]
    return {"summaries_of_a_post": _quantiles(of_posts)} if of_posts else {}


def _quantiles(lengths: list[int]) -> dict[str, int]:
    ordered = sorted(lengths)
    return {
        "median": statistics.median_low(ordered),
        "p95": ordered[int(0.95 * (len(ordered) - 1))],
        "max": ordered[-1],
    }


def length_histogram(tallies: Tallies) -> Iterator[dict[str, Any]]:
    """Rows (source, column, tokens, share) of the train splits: `tokens` is the lower end of a bin, its rows' share.

    A bin of prompts is wider than one of summaries; each column has at most BINS of them.
    """
    for what, splits in tallies.items():
        for column, lengths in splits["train"].tokens.items():
            width = max(lengths) // BINS + 1
            for start in range(min(lengths) // width * width, max(lengths) + 1, width):
                inside = sum(start <= length < start + width for length in lengths)
                yield {"source": what, "column": column, "tokens": start, "share": round(inside / len(lengths), 6)}
