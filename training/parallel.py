"""One process or several: `torchrun` starts them, and each takes its part of every batch.

Every rank knows all panels and makes the same batches, so what is trained on does not depend on the number of ranks;
batch-norm alone takes its statistics from a rank's part.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from .networks import CnnTransformer

T = TypeVar("T")


class Normalised(nn.Module):
    """What a step calls: a network's answer on the scale of the loss, as the `forward` that DDP shares gradients of."""

    def __init__(self, network: CnnTransformer) -> None:
        super().__init__()
        self.network = network

    def forward(self, iv: Tensor) -> Tensor:
        return self.network.normalised(iv)


class Ranks(NamedTuple):
    """The processes that train one network together."""

    rank: int
    """Of this one; 0 measures and writes."""
    size: int
    device: torch.device
    """Of this one."""

    def module_of(self, network: CnnTransformer) -> nn.Module:
        """The network's `normalised`; after a backward pass every rank has the mean of all ranks' gradients."""
        module = Normalised(network)
        # Buffers are constants but for batch-norm's, which `share_statistics` averages once an epoch.
        return DistributedDataParallel(module, forward_sync_buffers=False) if self.size > 1 else module

    def part(self, batch: Tensor) -> Tensor:
        """This rank's rows of a batch of all, a multiple of `size` long."""
        share = len(batch) // self.size
        return batch[self.rank * share : (self.rank + 1) * share]

    def mean(self, value: Tensor) -> Tensor:
        """The mean over ranks, on every rank."""
        if self.size > 1:
            # gloo has no mean of its own.
            dist.all_reduce(value)
            value /= self.size
        return value

    def share_statistics(self, network: nn.Module) -> None:
        """Give every rank the mean of the ranks' running statistics."""
        for module in network.modules():
            if isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None:
                self.mean(module.running_mean)
                self.mean(module.running_var)

    def from_first(self, value: T) -> T:
        """Rank 0's value, on every rank, which all wait for."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


def one_process(device: str = "cpu") -> Ranks:
    """This process alone; `cpu` or `cuda`."""
    return Ranks(0, 1, torch.device(device))


@contextmanager
def started_ranks(device: str) -> Iterator[Ranks]:
    """The processes that torchrun has started, or this one alone. Once in a process: torch cannot begin anew.

    device  `cpu` or `cuda`; of several ranks each takes the GPU of its number on its machine
    """
    if not dist.is_torchelastic_launched():
        yield one_process(device)
        return
    place = torch.device(device)
    if place.type == "cuda":
        place = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    yield Ranks(dist.get_rank(), dist.get_world_size(), place)
    # Not after an exception, where it could wait for ranks that wait for this one; torchrun ends them all.
    dist.destroy_process_group()
