"""The library as `pip install` of the wheel gives it: the README's ten lines run without the pipeline's packages."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version

import pytest
from packaging.requirements import Requirement

from tests.conftest import SOAK
from tests.pipelines import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Which module a package of the pipeline's is, where they are called differently.
MODULES = {
    "ruamel-yaml": "ruamel",
    "ruamel.yaml.clib": "_ruamel_yaml",
    "scikit-learn": "sklearn",
    "mpmath": "",
    "rouge-score": "rouge_score",
    "regex": "",
}  # fmt: skip; PyTorch has mpmath, transformers has regex
# Python reads it at its start: those are as if they were not installed.
BLOCKER = "import sys; sys.modules.update(dict.fromkeys({names}))"


def readme_lines() -> str:
    """The README's Python, on fewer episodes."""
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return code.replace("episodes=640", "episodes=64").replace("models/sft", "models/base")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built without a network from what git knows."""
    if int(version("setuptools").partition(".")[0]) < 77:
        pytest.skip("needs setuptools 77 to build")
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True)
    for name in listed.splitlines():
        if name.startswith(("minirlhf/", "pyproject", "README", "LICENSE", "NOTICE")) and (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "source" / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--wheel-dir", folder, folder / "source"], check=True)
    [built] = folder.glob("*.whl")
    return built


def run_ten_lines(python: str, folder, path: str) -> None:
    (folder / "models").mkdir()
    shutil.copytree(ROOT / "models" / "base", folder / "models" / "base")
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    code = readme_lines() + "\nimport minirlhf\nprint(minirlhf.__file__, len(history))\n"
    done = subprocess.run([python, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert str(ROOT) not in done.stdout and done.stdout.split()[-1] == "1"
    assert (folder / "models/own/eight-words/model.safetensors").exists()


def test_the_readmes_ten_lines_run_from_the_wheel_without_the_pipelines_packages(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    named = [Requirement(line).name for line in PROJECT["optional-dependencies"]["pipeline"]]
    blocked = {MODULES.get(name, name) for name in named} - {""}
    (tmp_path / "site" / "sitecustomize.py").write_text(BLOCKER.format(names=blocked))
    run_ten_lines(sys.executable, tmp_path, str(tmp_path / "site"))


def test_the_wheel_holds_the_library_its_pages_and_its_licence_only(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"minirlhf", f"minirlhf-{PROJECT['version']}.dist-info"}
    assert {"minirlhf/report/page.html", "minirlhf/labelling/page.js"} <= set(names)
    assert [name for name in names if name.endswith("licenses/LICENSE")]


@pytest.mark.skipif(not SOAK, reason="makes a whole new environment: needs a package index, or its cache")
def test_the_ten_lines_run_in_a_new_environment_and_the_index_would_take_the_wheel(wheel, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "new"], check=True)
    python = str(tmp_path / "new" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", wheel, "twine"], check=True)
    subprocess.run([python, "-m", "twine", "check", "--strict", wheel], check=True)
    run_ten_lines(python, tmp_path, "")
