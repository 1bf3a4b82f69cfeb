# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Context parallelism: attention over tokens that are cut among the ranks of torch.distributed.

    mesh = torch.distributed.init_device_mesh("cpu", (2, 2))
    x = nd.shard(whole, mesh, (0, 1))                                  # this rank's slab
    out = nd.neighborhood_attention(q, k, v, 7, mesh=mesh, shard_dims=(0, 1))
    out = nd.attention(q, k, v, group=mesh["x"], pattern="zigzag")

A rank's queries are a box and see a box of keys, so the keys that it must fetch are known before anything is
sent: `ShardPlan`. Runs on gloo and NCCL, launched by torchrun or anything else that sets up a process group.
"""

from ._team import PeerError, set_timeout
from .dense import attention
from .halo import halo
from .neighborhood import neighborhood_attention
from .plan import ShardPlan
from .sharding import shard, sum_gradients, unshard

__all__ = [
    "PeerError",
    "ShardPlan",
    "attention",
    "halo",
    "neighborhood_attention",
    "set_timeout",
    "shard",
    "sum_gradients",
    "unshard",
]
