"""Several processes, one run. Accelerate finds them (torchrun, accelerate launch); here is what PPO needs of them.

Every process samples its share of the episodes; the resulting numbers, a few kilobytes an episode, are gathered so that
each process holds the whole batch, and whitening and statistics need no further care. In an update each process
passes its share of a minibatch through the models, and gradients, already normalised by the global number of tokens,
are summed. This is what DistributedDataParallel does, without its wrapper around the model.
"""

import sys
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor

Item = TypeVar("Item")

# Elements of a bucket of gradients summed in one call: large enough that latency does not count.
BUCKET_ELEMENTS = 2**24

# Until a process gives up on the others. One may work alone for long (sampling, saving, a reward function over a
# network); of one that ended with an error the launcher tells the rest at once.
PATIENCE = timedelta(days=1)


class Processes:
    """The processes of a run; one process where none were launched."""

    def __init__(self, device: str | torch.device | None = None):
        cpu = device is not None and torch.device(device).type == "cpu"
        self.state = PartialState(cpu=cpu, timeout=PATIENCE)
        found = torch.device(device) if cpu else self.state.device
        assert found is not None  # Accelerate always finds one
        self.device = found
        self.rank, self.count = self.state.process_index, self.state.num_processes

    @property
    def is_main(self) -> bool:
        """True in the one process that writes files and shows progress."""
        return self.rank == 0

    def announce(self, stage: str, launch: str) -> None:
        """Say how many processes there are, where a launcher was asked for: some start one without a word."""
        if self.is_main and (self.count > 1 or launch != "python"):
            print(f"{stage}: {self.count} process{'es' * (self.count > 1)}", file=sys.stderr, flush=True)

    def share(self, items: Sequence[Item]) -> list[Item]:
        """This process's items, dealt out one by one (so that lengths, if sorted, are spread evenly)."""
        return list(items[self.rank :: self.count])

    def gather(self, items: list[Item]) -> list[Item]:
        """All processes' items, in the order in which `share` dealt them out. Items travel pickled, through the CPU."""
        if self.count == 1:
            return items
        shares: list[list[Item]] = [[] for _ in range(self.count)]
        dist.all_gather_object(shares, items)
        total = sum(len(share) for share in shares)
        return [shares[index % self.count][index // self.count] for index in range(total)]

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace each gradient by its sum over the processes; one without a gradient here counts as 0."""
        if self.count == 1:
            return
        bucket: list[Tensor] = []
        elements = 0
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            bucket.append(parameter.grad)
            elements += parameter.numel()
            if elements >= BUCKET_ELEMENTS:
                self._sum_bucket(bucket)
                bucket, elements = [], 0
        if bucket:
            self._sum_bucket(bucket)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over the processes."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def copy_from_first(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Give every process the first one's parameters."""
        if self.count > 1:
            for parameter in parameters:
                dist.broadcast(parameter.data, src=0)

    def wait(self) -> None:
        """Wait for the other processes."""
        self.state.wait_for_everyone()

    @staticmethod
    def _sum_bucket(bucket: list[Tensor]) -> None:
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        dist.all_reduce(flat)
        for gradient, summed in zip(bucket, flat.split([gradient.numel() for gradient in bucket]), strict=True):
            gradient.copy_(summed.view_as(gradient))
