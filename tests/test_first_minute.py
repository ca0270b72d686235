"""What goes wrong before anything runs: `make` with stand-ins for Python and df, in a folder whose name has a space."""

import os
import shutil
import subprocess
import sys
import time

import pytest

from tests.pipelines import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
# `-m venv FOLDER` makes an environment whose Python, like this one, only writes down how it was called.
PYTHON = f"""#!/bin/sh
set_version="import sys; sys.version_info = ${{VERSION:-(3, 11)}}"
if [ "$1" = -c ]; then exec "{sys.executable}" -c "$set_version; exec(sys.argv[1])" "$2"; fi
echo "$@" >> calls
if [ "$2" = venv ]; then sleep 0.5; mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi
"""


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    write(folder / "python", PYTHON)
    return folder


def write(path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def start(folder, target: str, **environment: str) -> subprocess.Popen:
    environment = {"GIT_CEILING_DIRECTORIES": str(folder.parent), **os.environ, **environment}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(["make", "PYTHON=./python", target], cwd=folder, env=environment, **pipes)


def says(folder, target: str, line: str, **environment: str) -> None:
    process = start(folder, target, **environment)
    printed, _ = process.communicate()
    assert process.returncode == 2 and line in printed.splitlines(), printed
    assert "Traceback" not in printed and not (folder / "calls").exists()


def test_an_archive_that_is_no_git_repository(folder):
    says(folder, "repro", "DVC needs a git repository, and this is none: git init, then once more")


def test_another_python(folder):
    says(folder, "setup", "MiniRLHF needs Python 3.11 or newer: make PYTHON=python3.12 ...", VERSION="(3, 9)")


def test_a_disk_that_is_nearly_full(folder):
    write(folder / "df", "#!/bin/sh\necho Filesystem\necho /dev/vda 9000000 8200000 800000 91% /\n")
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    says(folder, "setup", "the packages take 2 GB, and 800 MB are free here", PATH=path)


@pytest.mark.skipif(shutil.which("flock") is None, reason="needs flock")
def test_of_two_at_once_the_second_waits_and_has_nothing_to_do(folder):
    first = start(folder, "setup")
    time.sleep(0.1)
    second = start(folder, "setup")
    assert (first.wait(), second.wait()) == (0, 0)
    calls = (folder / "calls").read_text().splitlines()
    assert [call.split()[:2] for call in calls] == [["-m", "venv"]] + [["-m", "pip"]] * 3
    assert (folder / ".venv" / "ready").exists()
