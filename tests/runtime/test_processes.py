"""One process and two: the same episodes, and on them the same gradient to 1e-5."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def run(folder: Path, launch: list[str]) -> list[dict]:
    """The results of each process of a run."""
    folder.mkdir()
    script = [str(ROOT / "tests" / "ppo" / "two_processes.py"), str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launch, *script], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(file.read_text()) for file in sorted(folder.glob("rank*.json"))]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Of one process, and of two started by torchrun (`accelerate launch` would silently start one on a CPU)."""
    folder = tmp_path_factory.mktemp("processes")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return run(folder / "one", []), run(folder / "two", torchrun)


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_two_processes_agree_with_one(results, critic):
    [one], two = [[result[critic] for result in each] for each in results]
    assert one["world_size"] == 1
    assert [each["world_size"] for each in two] == [2, 2]
    assert two[0] | {"rank": 1} == two[1]
    # Dealing episodes out changes no sample ...
    assert two[0]["responses"] == one["responses"]
    assert len({len(response) for response in one["responses"]}) > 1
    for name in ("logprobs", "advantages"):
        torch.testing.assert_close(torch.tensor(two[0][name]), torch.tensor(one[name]), rtol=1e-5, atol=1e-5)
    # ... and no gradient, nor a statistic.
    assert two[0]["statistics"] == pytest.approx(one["statistics"], rel=1e-5, abs=1e-6)
    for name, expected in one["gradients"].items():
        expected, actual = torch.tensor(expected), torch.tensor(two[0]["gradients"][name])
        assert (actual - expected).norm() <= 1e-5 * expected.norm() + 1e-7, name
    # Two updates later, the rest of the run.
    assert len(two[0]["history"]) == len(one["history"]) == 3
    for ours, theirs in zip(two[0]["history"], one["history"], strict=True):
        assert ours["update"] == theirs["update"]
    assert two[0]["history"][1]["reward"] == one["history"][1]["reward"]
    assert two[0]["history"][1]["optimizer_steps"] == 4
    for name, expected in one["weights"].items():
        torch.testing.assert_close(torch.tensor(two[0]["weights"][name]), torch.tensor(expected), rtol=0, atol=2e-3)
