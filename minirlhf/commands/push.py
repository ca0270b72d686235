"""`minirlhf push`: a policy or a reward model, with its card, into a repository of the hub."""

from pathlib import Path

from minirlhf.hub.configs import LIKELIHOOD, TOKENIZER, WEIGHTS, find_model
from minirlhf.hub.locate import HUB_NAME
from minirlhf.hub.repository import upload
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import read_object, read_text

CARD = "README.md"  # what the hub shows


def push(folder: Path, name: str, public: bool = False) -> str:
    """Send a model's folder to the hub as one commit, private unless told otherwise; where it is then.

    Its files are the weights (safetensors), the config and the tokenizer, and of a reward model `reward.json` and the
    language model that it weighs, if any. The card that the report writes beside the folder (models/ppo.md) goes with
    it, and names the repository in its example.

    Raises:
        UserError: no model there, one that the pipeline would not load, or the hub does not take it.
    """
    if not HUB_NAME.fullmatch(name):
        raise UserError(f"{name}: expected the name of a repository, as user/{folder.name}")
    find_model(folder, None, ())
    files: dict[str, Path | bytes] = {}
    for part in (folder, folder / LIKELIHOOD) if _weighs_likelihood(folder) else (folder,):
        found = [file for pattern in (WEIGHTS, *TOKENIZER) for file in sorted(part.glob(pattern))]
        if not any(file.suffix == ".safetensors" for file in found):
            raise UserError(f"{part}: no weights in safetensors format there ({WEIGHTS}), so there is nothing to send")
        files |= {file.relative_to(folder).as_posix(): file for file in found}
    card = next((card for card in (folder.with_name(f"{folder.name}.md"), folder / CARD) if card.is_file()), None)
    if card is not None:
        files[CARD] = read_text(card).replace(f'"models/{folder.name}"', f'"{name}"').encode()
    url = upload(name, files, public)
    told = f"with its card {card}" if card else f"without a card: there is no {folder.with_name(folder.name + '.md')}"
    return f"{folder} is at {url} ({'public' if public else 'private'}), {told}"


def _weighs_likelihood(folder: Path) -> bool:
    """Whether a reward model's score has a part that is another model's: minirlhf/rewards/likelihood.py."""
    file = folder / "reward.json"
    return file.is_file() and bool(read_object(file).get("likelihood"))
