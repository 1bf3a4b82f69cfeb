# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What ranks do in test_distributed.py: laws of what is sent, when, and in which order."""

from unittest import mock

import torch
import torch.distributed as dist
from distributed_cases import close, group_of, mesh_of, neighborhoods, normal, prepare, sequences

import nearfield as nf
import nearfield.distributed as nd


def traffic(rank):
    """Bytes of keys and values, and of their gradients, are the plan's; a ring sends one slab per step."""
    from nearfield.distributed import _team

    prepare(rank)
    sent, exchange = [], _team.Team.exchange

    def counted(team, what, sends, receives):
        sent.append((what, [(place, x.numel() * x.element_size()) for place, x in sends if x.numel()]))
        return exchange(team, what, sends, receives)

    mesh, layout = mesh_of(2, 2), (10, 12)
    plan = nd.ShardPlan(layout, (3, 5), mesh_shape=(2, 2), shard_dims=(0, 1))
    local = [end - begin for begin, end in plan.slab(rank)]
    q, k, v = (torch.randn(2, *local, h, d, requires_grad=True) for h, d in ((4, 8), (2, 8), (2, 6)))
    each = {"kv_heads": 2, "head_dim": 8, "value_dim": 6, "batch": 2}
    with mock.patch.object(_team.Team, "exchange", counted):
        out = nd.neighborhood_attention(q, k, v, (3, 5), mesh=mesh, shard_dims=(0, 1))
        messages = [m for what, m in sent if what == "keys and values"]
        assert [sum(n for _, n in m) for m in messages] == [plan.bytes_sent(rank, **each)]
        assert [[place for place, _ in m] for m in messages] == [list(plan.send(rank))]
        out.sum().backward()
        messages = [m for what, m in sent if what == "gradients of keys and values"]
        assert [sum(n for _, n in m) for m in messages] == [plan.bytes_received(rank, **each)]
        sent.clear()
        x = torch.randn(1, 16, 2, 4)
        nd.attention(x, x, x, group=group_of(4), method="ring")
        messages = [m for what, m in sent if what == "keys and values" and m]
        assert messages == [[((rank + 1) % 4, 2 * x.numel() * 4)]] * 3
        sent.clear()
        nd.attention(x, x, x, True, nf.CausalType.TopLeft, group=group_of(4), method="ring")
        messages = [m for what, m in sent if what == "keys and values" and m]
        assert len(messages) == (rank + 1 if rank < 3 else 0)  # nobody behind the last rank sees its keys


def wide_gradients(rank):
    """Gradients of 16-bit keys travel as float32, in a fetch and in a ring, which also merges in float32."""
    from nearfield.distributed import _ring, _team

    prepare(rank)
    group, sent, merged = group_of(4), [], []
    exchange, merge = _team.Team.exchange, _ring.merge_attentions

    def watched(team, what, sends, receives):
        sent.extend((what, x.dtype) for _, x in sends if x.numel())
        return exchange(team, what, sends, receives)

    def merging(outputs, lses):
        merged.extend(x.dtype for x in outputs)
        return merge(outputs, lses)

    with (
        mock.patch.object(_team.Team, "exchange", watched),
        mock.patch.object(_ring, "merge_attentions", merging),
    ):
        for method in ("gather", "ring"):
            x = torch.randn(1, 4, 2, 4, dtype=torch.bfloat16, requires_grad=True)
            nd.attention(x, x, x, group=group, method=method).sum().backward()
            assert x.grad.dtype == torch.bfloat16
    found = set(sent)
    assert ("keys and values", torch.bfloat16) in found
    assert {dtype for what, dtype in found if what.startswith("gradients")} == {torch.float32}
    assert merged and set(merged) == {torch.float32}


def overlap(rank):
    """What needs no other rank's keys is computed between posting messages and waiting for them."""
    from nearfield import _shard_call
    from nearfield.distributed import _team

    prepare(rank)
    events, call = [], _shard_call.GlobalCall
    exchange, wait = _team.Team.exchange, _team.Exchange.wait

    def posted(team, what, *messages):
        events.append(what)
        return exchange(team, what, *messages)

    def waited(one):
        events.append("wait")
        return wait(one)

    def computed(way):
        original = getattr(call, way)
        return lambda *arguments: events.append("compute") or original(*arguments)

    patches = [
        mock.patch.object(_team.Team, "exchange", posted),
        mock.patch.object(_team.Exchange, "wait", waited),
    ]
    patches += [mock.patch.object(call, way, computed(way)) for way in ("forward", "backward")]
    for patch in patches:
        patch.start()
    try:
        x = torch.randn(1, 12, 2, 4, requires_grad=True)
        out = nd.neighborhood_attention(x, x, x, 3, mesh=mesh_of(4), shard_dims=0)
        fetched = events[2:]  # behind the agreement and its wait
        events.clear()
        out.sum().backward()
        home = events[2:]
        events.clear()
        nd.attention(x, x, x, group=group_of(4), method="ring")
        ring = events[2:]
    finally:
        for patch in patches:
            patch.stop()
    assert fetched[:3] == ["keys and values", "compute", "wait"] and set(fetched[3:]) == {"compute"}, fetched
    sent = home.index("gradients of keys and values")
    assert set(home[:sent]) == {"compute"} and home[sent + 1 :] == ["compute", "wait"], home
    assert ring == ["keys and values", "compute", "wait"] * 4, ring


def blocking(rank):
    """Results are the same where every exchange ends before the next begins, as a backend with one stream of
    messages (NCCL) may have it."""
    from nearfield.distributed import _team

    exchange = _team.Team.exchange

    def at_once(*arguments):
        posted = exchange(*arguments)
        posted.wait()
        return posted

    with mock.patch.object(_team.Team, "exchange", at_once):
        neighborhoods(rank, 5, 4, ((3,), (2, 2)), torch.float64)
        sequences(rank, 5, 25, (2, 3, 4), torch.float64)


def lse_of_one_rank(rank):
    """The loss of rank 0 alone has lse in it."""
    prepare(rank)
    if rank >= 2:
        return
    whole = [normal((1, 6, 2, 4), i, torch.float64).requires_grad_() for i in range(3)]
    out, lse = nf.attention(*whole, return_lse=True)
    expected = torch.autograd.grad(out.sum() + lse[:, :3].square().sum(), whole)
    for method in ("heads", "ring", "gather"):
        mine = [nd.shard(x.detach(), mesh_of(2)).requires_grad_() for x in whole]
        out, lse = nd.attention(*mine, return_lse=True, group=group_of(2), method=method)
        loss = out.sum() + (lse.square().sum() if rank == 0 else 0)
        for actual, due in zip(torch.autograd.grad(loss, mine), expected, strict=True):
            close(nd.unshard(actual, mesh_of(2)), due, torch.float64, method)


def same_sums(rank):
    """Sums over ranks are added in rank order: the same bits everywhere, even where order shows."""
    prepare(rank)
    p = torch.nn.Parameter(torch.zeros(2))
    p.grad = torch.tensor([[1e8, 1.0], [1.0, 1e8], [-1e8, 1.0], [1.0, -1e8]][rank])
    nd.sum_gradients([p], mesh_of(4))
    one = torch.tensor([1e8, 1.0])
    for row in ([1.0, 1e8], [-1e8, 1.0], [1.0, -1e8]):
        one += torch.tensor(row)
    assert torch.equal(p.grad, one), (p.grad, one)


def chosen(rank):
    """Without a method: one exchange for small keys, a ring for large ones. Other messages of the program
    that are on their way between the same ranks stay apart."""
    from nearfield.distributed import _team

    prepare(rank)
    found, exchange = [], _team.Team.exchange

    def watched(team, what, sends, receives):
        found.append(what)
        return exchange(team, what, sends, receives)

    group, peer = group_of(2), 1 - rank
    if rank >= 2:
        return
    theirs = torch.zeros(4096, dtype=torch.uint8)
    coming = dist.irecv(theirs, group_src=peer, group=group)
    with mock.patch.object(_team.Team, "exchange", watched):
        for tokens, exchanges in ((8, 1), (1100, 2)):
            x = torch.ones(1, tokens, 1, 64)
            found.clear()
            nd.attention(x, x, x, group=group)
            assert found.count("keys and values") == exchanges, (tokens, found)
    dist.send(torch.full((4096,), rank + 1, dtype=torch.uint8), group_dst=peer, group=group)
    coming.wait()
    assert bool((theirs == peer + 1).all())
