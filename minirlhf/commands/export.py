"""`minirlhf export`: a policy to take elsewhere, which samples by itself as it was found to be best."""

from pathlib import Path

from minirlhf.hub.configs import TOKENIZER, WEIGHTS, find_model
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import read_object, read_text, replace_folder, write_json

# Where evaluate leaves what it chose: here, and the copy that git keeps.
DETAILS = (Path("details/evaluate.json"), Path("results/details/evaluate.json"))
POLICIES = ("sft", "ppo")


def chosen_temperature(folder: Path) -> float | None:
    """The temperature that suits a policy, 0 for greedy decoding; None where nothing says it.

    What an exported folder says of itself, or what evaluate chose on validation posts for models/sft and models/ppo.
    """
    own = folder / "generation_config.json"
    settings = read_object(own) if own.exists() else {}
    if "do_sample" in settings:
        return float(settings.get("temperature", 1.0)) if settings["do_sample"] else 0.0
    details = next((file for file in DETAILS if file.exists()), None)
    if details is None or folder.name not in POLICIES or folder.resolve().parent != Path("models").resolve():
        return None
    best = read_object(details).get("best", {})
    return best[folder.name]["temperature"] if folder.name in best else None


def export(folder: Path, target: Path, max_new_tokens: int) -> float:
    """Copy a policy with its tokenizer and card, and a generation_config.json with the temperature, which is returned.

    Raises:
        UserError: no policy there, no temperature known, or something is in the way.
    """
    find_model(folder, None, ())
    temperature = chosen_temperature(folder)
    if temperature is None:
        raise UserError(
            f"{folder}: no temperature is known for it: `dvc repro` chooses one for models/sft and models/ppo"
        )
    if target.exists():
        raise UserError(f"{target}: is there already")
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    settings = read_object(folder / "generation_config.json") if (folder / "generation_config.json").exists() else {}
    card = folder.with_name(f"{folder.name}.md")
    with replace_folder(target) as new:
        for pattern in (WEIGHTS, *TOKENIZER):
            for file in folder.glob(pattern):
                (new / file.name).write_bytes(file.read_bytes())
        (new / "ppo.json").unlink(missing_ok=True)  # of the pipeline
        wanted = {"do_sample": False, "max_new_tokens": max_new_tokens} | sampling
        write_json(new / "generation_config.json", settings | wanted)
        if card.is_file():
            (new / "README.md").write_text(read_text(card).replace(f'"{folder}"', f'"{target}"'), encoding="utf-8")
    return temperature
