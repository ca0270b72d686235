"""How fast the labelling page is: first pair, a vote and the next pair, 100,000 votes read, the page's size.

    dvc repro collect
    python benchmarks/labelling.py

The server is a process of its own and asked over HTTP, as the page asks it; what a browser adds is measured by
tests/labelling/test_page.py. Votes go to a temporary folder in the current one, so that the disk is the project's. On a
busy machine look at the processor time.
"""

import argparse
import http.client
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil

from minirlhf.feedback.votes import Pair, Summary, Vote, Votes, add, digest, read_votes
from minirlhf.labelling.server import FILES, file
from minirlhf.runtime import processor

ROOT = Path(__file__).resolve().parents[1]
KEYS = ("pair", "left", "shown", "rule", "repeat")  # of what is asked, that a vote says again


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votes", type=int, default=100, help="to cast (default: %(default)s)")
    parser.add_argument("--read", type=int, default=100_000, help="votes to read (default: %(default)s)")
    args = parser.parse_args()
    print(f"{processor.name()}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"page without posts: {sum(len(file(name).encode()) for name, _ in FILES.values()) / 1000:.1f} KB")
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        (folder / "data").mkdir()
        (folder / "data/collected").symlink_to(ROOT / "data/collected")
        (folder / "params.yaml").symlink_to(ROOT / "params.yaml")
        serve(folder, args.votes)
        read(folder / "many", args.read)


def serve(folder: Path, count: int) -> None:
    """Time the command until the first pair is there, and each vote until the next one is."""
    command = [sys.executable, "-m", "minirlhf", "label", "--port", "0", "--no-open"]
    environment, start = os.environ | {"PYTHONPATH": str(ROOT)}, time.perf_counter()
    server = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        address = server.stdout.readline().strip().removeprefix("http://").rstrip("/")
        connection = http.client.HTTPConnection(address, timeout=60)

        def send(path: str, said: dict) -> dict:
            connection.request("POST", path, json.dumps(said | {"voter": "anna"}), {"Content-Type": "application/json"})
            return json.loads(connection.getresponse().read())

        ask = send("/next", {})["ask"]
        took, used = time.perf_counter() - start, processor_time(server)
        print(f"first pair: {took:.2f} s after the command, {used:.2f} s of processor time")
        took = []
        for _ in range(count):
            vote = {"id": secrets.token_hex(16), "choice": "left", "seconds": 1.0} | {key: ask[key] for key in KEYS}
            start = time.perf_counter()
            ask = send("/vote", vote)["ask"]
            took.append(1000 * (time.perf_counter() - start))
        ends = f"median {statistics.median(took):.1f} ms, slowest of {count} {max(took):.1f} ms"
        used = 1000 * (processor_time(server) - used) / count
        print(f"a vote on the disk, and the next pair back: {ends}, {used:.1f} ms of processor time")
    finally:
        server.terminate()
        server.wait()


def processor_time(process: subprocess.Popen) -> float:
    """Seconds so far."""
    return sum(psutil.Process(process.pid).cpu_times()[:2])


def read(folder: Path, count: int) -> None:
    """Time the reading of votes of two voters on pairs of 1 KB, by processor time: the best of three."""
    text = "word " * 200
    pairs = [
        Pair(prompt=f"{number} {text}", summaries=(Summary(text=" one"), Summary(text=" two")))
        for number in range(count // 2)
    ]
    votes = [
        Vote(id=digest(voter, pair.id), voter=voter, pair=pair.id, left=0, choice="left", shown=pair.shown(0))
        for pair in pairs
        for voter in ("anna", "ben")
    ]
    add(folder, Votes(), votes, {pair.id: pair for pair in pairs})
    took = []
    for _ in range(3):
        start = time.process_time()
        found = read_votes(folder)
        took.append(time.process_time() - start)
    print(f"{len(found.cast):,} votes on {len(found.pairs):,} pairs read: {min(took):.2f} s of processor time")


if __name__ == "__main__":
    main()
