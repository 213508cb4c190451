"""Elastic networks: one set of weights, every subnet by leading slices; extraction to static modules; checkpoints."""

from ofa_deploy.supernet.checkpoint import (
    Header,
    load_supernet,
    read_summary,
    read_tensors,
    save_supernet,
    write_tensors,
)
from ofa_deploy.supernet.execute import initialise
from ofa_deploy.supernet.inherit import inherit
from ofa_deploy.supernet.single import as_subnet, as_supernet
from ofa_deploy.supernet.subnet import Subnet
from ofa_deploy.supernet.supernet import Supernet
from ofa_deploy.supernet.synchronised import PeerLostError, reaching_peers, synchronised

__all__ = [
    "Header",
    "PeerLostError",
    "Subnet",
    "Supernet",
    "as_subnet",
    "as_supernet",
    "inherit",
    "initialise",
    "load_supernet",
    "reaching_peers",
    "read_summary",
    "read_tensors",
    "save_supernet",
    "synchronised",
    "write_tensors",
]
