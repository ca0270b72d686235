"""Summaries of a user's own posts, by several checkpoints side by side, with the reward of each."""

import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from minirlhf.commands.export import chosen_temperature
from minirlhf.runtime.errors import UserError, printable
from minirlhf.runtime.files import read_jsonl, read_text
from minirlhf.runtime.stage import quiet
from minirlhf.settings.params import load_params
from minirlhf.text.chat import ChatPrompt, is_chat, spoken
from minirlhf.text.prompts import ENDING, Post, build_prompt, parse_prompt
from minirlhf.text.spelling import tidy
from minirlhf.text.truncate import truncate_prompt

# Of Stiennon et al. 2020, for a folder without params.yaml.
MAX_PROMPT_TOKENS, MAX_NEW_TOKENS = 512, 53
GAP = 3  # columns between two summaries


@dataclass(frozen=True)
class Decoding:
    """How summaries are drawn."""

    temperature: float | None = None  # 0: greedy; None: the one that suits each policy, or greedy where none is known
    seed: int = 0
    max_new_tokens: int = MAX_NEW_TOKENS  # EOS included
    max_prompt_tokens: int = MAX_PROMPT_TOKENS  # a longer post is cut, as in the prepare stage
    body: str | None = None  # data.body of the params: what of a prompt may be cut
    device: str = "auto"

    def __post_init__(self):
        if self.temperature is not None and not (0 <= self.temperature < float("inf")):
            raise UserError(f"--temperature: expected a number >= 0 (0 is greedy), got {self.temperature}")
        if self.max_new_tokens < 1:
            raise UserError(f"--max-new-tokens: expected a number >= 1, got {self.max_new_tokens}")


def default_decoding(params: Path = Path("params.yaml")) -> dict[str, Any]:
    """The limits and the device of the params, where there are any."""
    if not params.exists():
        return {}
    loaded = load_params(params)
    limits = {"max_prompt_tokens": loaded.data.max_prompt_tokens, "max_new_tokens": loaded.ppo.max_new_tokens}
    return limits | {"body": loaded.data.body, "device": loaded.device}


def to_prompt(
    text: str | list, title: str = "", subreddit: str = "AskReddit", where: str = "post", whole: bool = False
) -> str:
    """The prompt of a raw post, or of a chat; a text that is in the TL;DR format already stays as it is.

    Args:
        whole: the text is a prompt, of whatever format, and stays as it is, as `prepare` leaves it.

    >>> to_prompt("My cat left.\\n", title="Help", subreddit="r/advice")
    'SUBREDDIT: r/advice\\n\\nTITLE: Help\\n\\nPOST: My cat left.\\n\\nTL;DR:'

    Raises:
        UserError: there is no post.
    """
    if isinstance(text, list):
        return ChatPrompt(spoken(ChatPrompt("", text)), text)
    text, _ = tidy(text)
    given = parse_prompt(text)
    if not (given.body if given else text.removesuffix(ENDING.strip()).strip()):
        raise UserError(f"{where}: the post is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # bytes of a command line that are no UTF-8, or half a surrogate pair
        raise UserError(f"{where}: not text in UTF-8") from error
    if given or whole or text.endswith(ENDING):
        return text
    return build_prompt(Post(subreddit.strip().removeprefix("r/"), title.strip(), text))


def read_posts(path: Path) -> list[tuple[str, str | list, bool]]:
    """Posts of a file or a folder, in the order of the names: (where, text or messages, whether it is a prompt).

    A .txt file is one post; a .jsonl file has a prompt a line: a text in `prompt`, or a list of messages there or in
    `messages`.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in (".txt", ".jsonl"))
        if not files:
            raise UserError(f"{path}: no .txt or .jsonl files there")
        return [post for file in files for post in read_posts(file)]
    if path.suffix != ".jsonl":
        return [(str(path), read_text(path), False)]
    posts = []
    for number, row in enumerate(read_jsonl(path), start=1):
        where = f"{path}, post {number}"
        prompt = row.get("messages") or row.get("prompt")
        if not isinstance(prompt, str) and not is_chat(prompt):
            keys = ", ".join(row) or "none"
            raise UserError(f"{where}: expected a text in `prompt`; its keys are {keys}")
        posts.append((where, prompt, True))
    if not posts:
        raise UserError(f"{path}: no posts there")
    return posts


def summarize(
    prompts: Sequence[str], models: Sequence[str], reward: str | None = None, decoding: Decoding | None = None
) -> list[dict[str, Any]]:
    """Summaries of prompts, in the TL;DR format or chats, by every model.

    Args:
        models: folders of policies, each with its own tokenizer.
        reward: folder of a reward model; None: no rewards.

    Returns:
        a row a prompt: {"prompt", "reward_model", "summaries": {model: {"summary", "reward", "ended", "cut",
        "temperature"}}}. The
        reward is of the prompt as the model has read it: where it was too long (`cut`), of what was left.

    Raises:
        UserError: a model is missing or damaged, or a title leaves no room for the post.
    """
    for name in (*models, *([reward] if reward is not None else [])):
        if not Path(name).is_dir():
            raise UserError(f"{name}: no such folder; `dvc repro` makes the pipeline's models, `dvc pull` fetches them")
    quiet()
    import torch

    from minirlhf.hub.configs import load_tokenizer
    from minirlhf.models.loading import load_policy
    from minirlhf.models.trunk import TrunkAndHead
    from minirlhf.rewards.model import RewardModel
    from minirlhf.rewards.text import call_reward
    from minirlhf.runtime.device import choose_device
    from minirlhf.sampling.summaries import sample
    from minirlhf.text.prompts import encode_prompts

    decoding = decoding or Decoding()
    device = choose_device(decoding.device)
    torch.use_deterministic_algorithms(True)
    judge = None if reward is None else RewardModel.load(reward, device=device)
    rows = [{"prompt": prompt, "reward_model": reward, "summaries": {}} for prompt in prompts]
    for name in models:
        tokenizer, policy = load_tokenizer(name), load_policy(name).to(device)
        positions = getattr(policy.config, "max_position_embeddings", None) or decoding.max_prompt_tokens
        limit = min(decoding.max_prompt_tokens, positions - decoding.max_new_tokens)
        read = []
        for number, prompt in enumerate(prompts, start=1):
            if isinstance(prompt, ChatPrompt) and not tokenizer.chat_template:
                raise UserError(f"{name}: its tokenizer has no chat template, and post {number} is a chat")
            count = lambda text: len(encode_prompts(tokenizer, [text])[0])  # noqa: B023, E731
            cut = truncate_prompt(prompt, limit, count, decoding.body)
            if cut is None:
                raise UserError(f"post {number}: title and subreddit leave no room for the post in {limit} tokens")
            read.append(cut)
        temperature = decoding.temperature
        if temperature is None:
            temperature = chosen_temperature(Path(name)) or 0.0
        found = sample(
            TrunkAndHead(policy),
            tokenizer,
            read,
            temperature=temperature,
            max_new_tokens=decoding.max_new_tokens,
            seed=decoding.seed,
        )
        scores = [None] * len(read)
        if judge is not None:
            scores = call_reward(judge, read, found.texts, found.ended.tolist(), found.token_ids)
        for row, prompt, text, score, ended in zip(rows, read, found.texts, scores, found.ended.tolist(), strict=True):
            shown = {"summary": text.strip(), "reward": None if score is None else round(score, 4), "ended": ended}
            row["summaries"][name] = shown | {"cut": prompt != row["prompt"], "temperature": temperature}
    return rows


def side_by_side(row: dict[str, Any], width: int | None = None) -> str:
    """A row of `summarize` for a terminal: a column a model, its name and reward above the summary."""
    width = width or shutil.get_terminal_size().columns
    post = parse_prompt(row["prompt"])
    heading = f"r/{post.subreddit}: {post.title}" if post else row["prompt"]
    summaries = row["summaries"]
    column = max(20, (width - GAP * (len(summaries) - 1)) // len(summaries))
    cells = []
    for name, found in summaries.items():
        reward = "" if found["reward"] is None else f"  reward {found['reward']:.2f}"
        text = printable(found["summary"]) + ("" if found["ended"] else " [cut at the limit]")
        text = textwrap.wrap(text, column) or ["(nothing)"]
        cells.append([*textwrap.wrap(printable(name) + reward, column), *text])
    rows = zip_longest(*cells, fillvalue="")
    lines = ((" " * GAP).join(cell.ljust(column) for cell in cells).rstrip() for cells in rows)
    notes = [] if row["reward_model"] is None else [f"reward by {printable(row['reward_model'])}"]
    if any(found["cut"] for found in summaries.values()):
        notes.append("the post was too long and has been cut")
    shown = textwrap.shorten(printable(heading), max(width, 40), placeholder=" ...")
    return "\n".join([shown, "", *lines, *([f"\n({'; '.join(notes)})"] if notes else [])])
