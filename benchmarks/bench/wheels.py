"""Fetch what `minirlhf bench` needs on a GPU machine that reaches no network, into a folder to carry there.

    python benchmarks/bench/wheels.py wheels --list      # what it needs, and nothing else
    python benchmarks/bench/wheels.py wheels             # fetch it: 60 MB at most
    sh wheels/install.sh                                 # there; prints the command to run

Python 3.12, torch 2.11, transformers 5.17, accelerate, peft and the usual scientific packages are taken to be there.
TRL comes twice, each time in a folder of its own: 1.12.0 for its PPO, and the one of requirements.lock.
"""

import argparse
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).resolve().parents[2] / "requirements.lock"
LOCKED = ("pydantic", "pydantic_core", "annotated-types", "typing-inspection", "ruamel.yaml", "trl")
# datasets' lower bound, with what it asks for: later ones want a later huggingface_hub than transformers 5.17 does.
DATASETS = ("datasets==4.7.0", "pyarrow==21.0.0", "dill==0.4.0", "multiprocess==0.70.18", "xxhash==3.6.0")
TRL_PPO = ("trl==1.12.0",)
MOST_MB = 60
INSTALL = """#!/bin/sh
# Unpacks the wheels beside this file; needs no network and changes nothing elsewhere.
set -e
cd "$(dirname "$0")"
for name in ours trl112; do
    python -m pip install --quiet --no-index --no-deps --upgrade --target "site-$name" "$name"/*.whl
done
printf '#!/bin/sh\\nPYTHONPATH="%s:$PYTHONPATH" exec python "$@"\\n' "$PWD/site-trl112" > trl112-python
chmod +x trl112-python
echo "PYTHONPATH=$PWD/site-ours python -m minirlhf bench --trl-python $PWD/trl112-python"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--list", action="store_true", help="print the requirements, fetch nothing")
    parser.add_argument("--python", default="3.12", help="version of the Python there (default: 3.12)")
    args = parser.parse_args()
    wanted = {"ours": [*locked(LOCKED), *DATASETS], "trl112": [*TRL_PPO]}
    if args.list:
        print("\n".join(f"{name}: {requirement}" for name, of in wanted.items() for requirement in of))
        return
    options = ["--quiet", "--only-binary=:all:", "--no-deps", f"--python-version={args.python}"]
    options += [f"--platform={kind}_x86_64" for kind in ("manylinux_2_28", "manylinux_2_17", "manylinux2014")]
    for name, requirements in wanted.items():
        command = [sys.executable, "-m", "pip", "download", *options, "--dest", args.folder / name, *requirements]
        subprocess.run(command, check=True)
    (args.folder / "install.sh").write_text(INSTALL)
    sizes = {file.relative_to(args.folder): file.stat().st_size / 1e6 for file in sorted(args.folder.rglob("*.whl"))}
    print("\n".join(f"{size:6.1f} MB  {file}" for file, size in sizes.items()))
    print(f"{sum(sizes.values()):6.1f} MB; there: sh {args.folder}/install.sh")
    if sum(sizes.values()) > MOST_MB:
        sys.exit(f"error: more than {MOST_MB} MB")


def locked(names: tuple[str, ...]) -> list[str]:
    """The lines of requirements.lock that pin these packages."""
    pins = {line.split("==")[0].lower(): line.split()[0] for line in LOCK.read_text().splitlines() if "==" in line}
    return [pins[name.lower()] for name in names]


if __name__ == "__main__":
    main()
