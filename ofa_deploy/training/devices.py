"""Where and how a training computes."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn

from ofa_deploy.errors import UsageError
from ofa_deploy.training.distributed import World

KEPT_BYTES = 512 * 2**20  # of freed memory at the most
_LARGEST_BLOCK = 32 * 2**20  # the most that glibc accepts
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # as malloc.h numbers them


def choose_device(wanted: str, world: World) -> torch.device:
    """The device of a recipe: ``cpu``, ``cuda``, or ``auto`` for a GPU where there is one.

    Raises:
        UsageError: it wants a GPU, but there is none, or there are fewer than processes.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UsageError("the recipe says device: cuda, but torch finds no GPU here; set device: auto or cpu")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
    return world.device("cuda")


def computing_in(precision: str, device: torch.device) -> torch.autocast:
    """Within: layers compute in a recipe's precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def device_of(model: nn.Module) -> torch.device:
    """Where a model's weights lie."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next tensors, up to ``KEPT_BYTES``; another C library stays as it is.

    By default it returns large blocks to the system, which then clears every page of the next tensor again.
    That took a sixth of a small network's step, and threads that compute at the same time wait for each other there.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)


@contextmanager
def torch_settings(threads: int | None) -> Iterator[None]:
    """Deterministic kernels and the recipe's threads, for a while; memory that is freed is kept from now on."""
    filled: Any = torch.utils.deterministic
    before = torch.get_num_threads(), torch.get_deterministic_debug_mode(), filled.fill_uninitialized_memory
    torch.set_num_threads(threads or before[0])
    # use_deterministic_algorithms would load torch's compiler only to tell it, which takes seconds (``compiled`` does)
    torch.set_deterministic_debug_mode("error")
    keep_freed_memory()
    # torch would also fill every new tensor, before a kernel overwrites it: a sixth of the time of a small network
    filled.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_deterministic_debug_mode(before[1])
        filled.fill_uninitialized_memory = before[2]
