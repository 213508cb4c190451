"""One training in many processes, started by ``torchrun``: who they are, and what they tell each other.

Every process draws the same archs and takes its share of every batch; gradients, batch statistics and results are added
up, so that what is trained does not depend on how many there are, but for rounding.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from ofa_deploy.errors import OfaDeployError, UsageError
from ofa_deploy.supernet import PeerLostError, reaching_peers

BUCKET = 1 << 22  # values that travel together
TIMEOUT = 600.0  # seconds
Name = TypeVar("Name")


@dataclass(frozen=True)
class World:
    """The processes of one training, as one of them sees it.

    Attributes:
        rank, size: this process's number, and how many there are.
        local_rank, local_size: the same among the processes on this machine.
        group: None for a process on its own, which then needs nobody.
        agent: the process that started this one and watches it; None without ``torchrun``.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    group: dist.ProcessGroup | None = None
    agent: int | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes files and speaks."""
        return self.rank == 0

    def device(self, kind: str) -> torch.device:
        """This process's device of a kind.

        Raises:
            UsageError: this machine has fewer GPUs than processes.
        """
        if kind != "cuda" or self.group is None:
            return torch.device(kind)
        if torch.cuda.device_count() < self.local_size:
            raise UsageError(
                f"there are {self.local_size} processes but {torch.cuda.device_count()} GPUs on this machine; "
                "set --nproc-per-node to the number of GPUs, or device: cpu in the recipe"
            )
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    def part(self, count: int) -> slice:
        """This process's images of a batch of ``count``; parts differ by one image at most.

        Raises:
            UsageError: there are more processes than images.
        """
        if count < self.size:
            raise UsageError(
                f"a batch of {count} images is too small for {self.size} processes; raise batch_size, or start fewer"
            )
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def sum(self, values: Tensor) -> Tensor:
        """Add up a tensor over the processes, in place."""
        if self.group is not None:
            with reaching_peers():
                dist.all_reduce(values, group=self.group)
        return values

    def total(self, values: dict[Name, float]) -> dict[Name, float]:
        """Add up named numbers over the processes."""
        self.check_agent()
        return dict(
            zip(values, self.sum(torch.tensor(list(values.values()), dtype=torch.float64)).tolist(), strict=True)
        )

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Add up the gradients of all processes; each must have one of the same shape for every parameter."""
        if self.group is not None:
            for bucket in _buckets([p.grad for p in parameters if p.grad is not None]):
                _scatter(self.sum(_flat(bucket)), bucket)

    def copy_from_main(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with the main process's."""
        if self.group is None:
            return
        for bucket in _buckets(list(tensors)):
            flat = _flat(bucket)
            with reaching_peers():
                dist.broadcast(flat, 0, group=self.group)
            _scatter(flat, bucket)

    def ask_main(self, question: Callable[[], Any]) -> Any:
        """What the main process answers, a JSON value; the others do not ask themselves."""
        if self.group is None:
            return question()
        content = json.dumps(question()).encode() if self.is_main else b""
        length = self.sum(torch.tensor([len(content)]))
        buffer = torch.zeros(int(length), dtype=torch.uint8)
        if self.is_main:
            buffer = torch.from_numpy(np.frombuffer(content, np.uint8).copy())
        self.copy_from_main([buffer])
        return json.loads(buffer.numpy().tobytes())

    def interleave(self, own: Sequence[Tensor], like: Tensor) -> list[Tensor]:
        """Join what the processes made of a sequence whose element ``i`` belonged to process ``i % size``.

        Args:
            own: this process's results, vectors of any lengths, of ``like``'s type and on its device.

        Returns:
            All results, in the sequence's order, the same bits everywhere.
        """
        if self.group is None:
            return list(own)
        total = int(self.sum(torch.tensor([len(own)])))
        lengths = torch.zeros(total, dtype=torch.int64)
        lengths[self.rank :: self.size] = torch.tensor([len(value) for value in own], dtype=torch.int64)
        whole = like.new_zeros(int(self.sum(lengths).sum()))
        parts = whole.split(lengths.tolist()) if total else ()
        for place, value in zip(parts[self.rank :: self.size], own, strict=True):
            place.copy_(value)
        self.sum(whole)  # every value is one process's own and zero elsewhere: adding them up changes none
        return list(parts)

    def wait(self) -> None:
        """Wait for all processes to come here."""
        self.sum(torch.zeros(1))

    @contextmanager
    def one_by_one(self) -> Iterator[None]:
        """Within: one process of each machine goes ahead, as to download files, and the others follow."""
        if self.local_rank != 0:
            self.wait()
        yield
        if self.local_rank == 0:
            self.wait()

    def check_agent(self) -> None:
        """Stop where ``torchrun`` was killed: a training that it starts anew must not meet this one."""
        if self.agent is not None and os.getppid() != self.agent:
            raise OfaDeployError("torchrun, which supervises this training, has died; start it again with --resume")


ALONE = World()


@contextmanager
def join_world(timeout: float = TIMEOUT) -> Iterator[World]:
    """The world that ``torchrun``'s environment describes; a plain process is alone.

    Where several processes fail, the first one's error is raised; the others, which fail for the same reason or because
    that one is gone, leave quietly with the same exit code.

    Args:
        timeout: seconds to wait for an answer of the others.

    Raises:
        UsageError: the environment is not what ``torchrun`` makes.
        PeerLostError: another process cannot be reached, or is lost later on.
    """
    rank, size, local_rank, local_size = _numbers()
    if size == 1:
        yield ALONE
        return
    store = _join(timeout)
    # torchrun gives every process one thread unless it is told otherwise
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_size))
    agent = os.getppid() if dist.is_torchelastic_launched() else None
    try:
        yield World(rank, size, local_rank, local_size, dist.group.WORLD, agent)
    except (OfaDeployError, OSError) as error:
        if not _first_to_fail(store, rank):
            raise SystemExit(getattr(error, "exit_code", 1)) from error
        if rank and isinstance(error, OfaDeployError):
            raise type(error)(f"process {rank} of {size}: {error}") from error
        raise
    finally:
        dist.destroy_process_group()


def _numbers() -> tuple[int, int, int, int]:
    """Rank, size, local rank and local size; a launcher that is not ``torchrun`` may leave out the last two."""
    names = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
    try:
        rank, size, local_rank, local_size = (int(os.environ.get(name, plain)) for name, plain in names.items())
    except ValueError as error:
        raise UsageError(f"{', '.join(names)} must be numbers, as torchrun sets them ({error})") from error
    return rank, size, local_rank, local_size


def _join(timeout: float) -> Store:
    """Meet the other processes; the store outlives any of them."""
    wait = timedelta(seconds=timeout)
    try:
        store, rank, size = next(rendezvous("env://", timeout=wait))
        # numbers of the loop travel by gloo also where gradients travel by NCCL: it notices at once when a process dies
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=wait, store=store, rank=rank, world_size=size)
    except (RuntimeError, ValueError) as error:
        raise PeerLostError(
            f"the other processes cannot be reached ({' '.join(str(error).split())[:120]}): start all with the same "
            "torchrun command, and check that --rdzv-endpoint can be reached from here"
        ) from error
    return store


def _first_to_fail(store: Store, rank: int) -> bool:
    """Whether no other process has failed before."""
    try:
        return store.compare_set("failed", "", str(rank)).decode() == str(rank)
    except RuntimeError:  # whoever kept the store is gone as well
        return True


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Group tensors so that few and not too large messages are sent."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        bucket.append(tensor)
        if sum(member.numel() for member in bucket) >= BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


@torch.no_grad()
def _scatter(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    for tensor, values in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(values.view_as(tensor))
