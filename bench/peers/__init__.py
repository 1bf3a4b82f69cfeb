# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Who is measured by the bench: nearfield, the peers of nearfield.tools, and some that only run here."""

from __future__ import annotations

from nearfield.tools.peers import Absent, Peer

__all__ = ["Absent", "Peer", "everyone"]


def everyone() -> dict[str, type[Peer]]:
    from nearfield.tools.peers.flex import Flex
    from nearfield.tools.peers.sdpa import Sdpa

    from .gather import Gather
    from .onnx_runtime import OnnxRuntime
    from .open_vino import OpenVino
    from .ours import Nearfield
    from .tile_sdpa import TileSdpa

    return {p.name: p for p in (Nearfield, Sdpa, Flex, TileSdpa, Gather, OpenVino, OnnxRuntime)}
