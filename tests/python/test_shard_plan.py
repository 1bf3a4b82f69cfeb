# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Exchange plans against the dense mask, key by key, without processes."""

import copy
import itertools
import math
import pickle
import random

import pytest
import torch
from oracle import dense_mask, grid_mask

from nearfield import _core
from nearfield.distributed import ShardPlan
from nearfield.distributed import _boxes as boxes
from nearfield.distributed._sequence import Sequence, parts_of, ring_of


def tokens(box, layout):
    """Raster numbers of a box's tokens."""
    strides = [math.prod(layout[a + 1 :]) for a in range(len(layout))]
    return {
        sum(x * s for x, s in zip(t, strides, strict=True))
        for t in itertools.product(*(range(*i) for i in box))
    }


def compositions(n, parts):
    """All slabs of n tokens, empty ones included."""
    if parts == 1:
        return [(n,)]
    return [(i, *rest) for i in range(n + 1) for rest in compositions(n - i, parts - 1)]


def hull(keys, layout):
    """Per axis the first and behind the last coordinate of raster numbers."""
    spans, rest = [], list(keys)
    for n in reversed(layout):
        spans.append((min(t % n for t in rest), max(t % n for t in rest) + 1))
        rest = [t // n for t in rest]
    return tuple(reversed(spans))


def check(plan, layout, window, stride, dilation, causal):
    """Every law of a plan."""
    mask = grid_mask(layout, window, stride, dilation, causal)
    held = [tokens(plan.slab(r), layout) for r in range(plan.ranks)]
    assert sorted(itertools.chain(*held)) == list(range(math.prod(layout)))  # every token has one rank
    for rank in range(plan.ranks):
        share, name = plan.share(rank), f"rank {rank} of {plan!r}"
        seen = {q: set(mask[q].nonzero().flatten().tolist()) for q in held[rank]}
        needed = set().union(*seen.values())
        # What it needs is the box around the keys that its queries see, and it fetches what is not its own.
        if needed:
            assert plan.needed(rank) == hull(needed, layout), name
        fetched = [tokens(box, layout) for _, message in share.fetch for box in message]
        assert sum(map(len, fetched)) == len(set().union(*fetched)), name
        box = tokens(plan.needed(rank), layout) if needed else set()
        assert set().union(*fetched) == box - held[rank], name
        for peer, message in share.fetch:
            assert peer != rank and tokens(message[0], layout) <= held[peer], name
            assert dict(plan.share(peer).send)[rank] == message, name
        for peer, message in share.send:
            assert dict(plan.share(peer).fetch)[rank] == message, name
        assert [p for p, _ in share.fetch] == sorted(plan.fetch(rank)), name
        # Its tasks compute each query once, against a box that holds all that it sees and that is there.
        done = [tokens(task.queries, layout) for task in (*share.local, *share.remote)]
        assert sorted(itertools.chain(*done)) == sorted(held[rank]), name
        for task, queries in zip((*share.local, *share.remote), done, strict=True):
            keys = tokens(task.keys, layout)
            assert all(seen[q] <= keys for q in queries) and keys <= box, name
            assert task in share.remote or keys <= held[rank], name
        # Queries that wait could not have run, except beside tokens of other dilation groups.
        if max(dilation) == 1:
            for task in share.remote:
                inner = [q for q in tokens(task.queries, layout) if seen[q] <= held[rank]]
                assert not inner, name


def cases(extent):
    for dilation in range(1, extent + 1):
        for window in range(1, extent // dilation + 1):
            for stride in range(1, window + 1):
                for causal in (False, True):
                    yield window, stride, dilation, causal


@pytest.mark.parametrize("extent", range(1, 9))
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_one_dimensional_shard(extent, ranks):
    """All windows, strides, dilations and cuts, empty slabs among them."""
    generator = random.Random(0)
    for axis in cases(extent):
        cuts = compositions(extent, ranks)
        for sizes in generator.sample(cuts, min(len(cuts), 9)):
            plan = ShardPlan((extent,), *axis, mesh_shape=(ranks,), shard_dims=0, sizes=(sizes,))
            check(plan, (extent,), *((x,) for x in axis))


@pytest.mark.full
@pytest.mark.parametrize("extent", range(1, 13))
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_every_one_dimensional_shard_and_cut(extent, ranks):
    for axis in cases(extent):
        for sizes in compositions(extent, ranks):
            plan = ShardPlan((extent,), *axis, mesh_shape=(ranks,), shard_dims=0, sizes=(sizes,))
            check(plan, (extent,), *((x,) for x in axis))


def random_plan(generator):
    """(plan, layout, window, stride, dilation, causal) of two or three axes."""
    rank = generator.choice((2, 2, 3))
    layout = tuple(generator.randint(1, 7 if rank == 2 else 5) for _ in range(rank))
    dilation = tuple(generator.choice((1, 1, generator.randint(1, n))) for n in layout)
    window = tuple(generator.randint(1, n // d) for n, d in zip(layout, dilation, strict=True))
    stride = tuple(generator.choice((1, generator.randint(1, k))) for k in window)
    causal = tuple(generator.random() < 0.3 for _ in layout)
    dims = generator.randint(1, rank)
    shard_dims = tuple(generator.sample(range(rank), dims))
    mesh = tuple(generator.randint(1, 3) for _ in range(dims))
    sizes = [generator.choice(compositions(layout[a], n)) for a, n in zip(shard_dims, mesh, strict=True)]
    given = (layout, window, stride, dilation, causal)
    more = {"mesh_shape": mesh, "shard_dims": shard_dims}
    return (ShardPlan(*given, **more, sizes=sizes), *given)


@pytest.mark.parametrize("seed", range(4))
def test_meshes_of_several_dimensions(seed):
    generator = random.Random(seed)
    for _ in range(40):
        check(*random_plan(generator))


@pytest.mark.full
@pytest.mark.parametrize("seed", range(100, 130))
def test_more_meshes_of_several_dimensions(seed):
    generator = random.Random(seed)
    for _ in range(100):
        check(*random_plan(generator))


def test_inner_queries_with_dilation():
    """The tokens whose windows are within the keys, up to the ends where dilation groups alternate."""
    for extent, (window, stride, dilation, causal) in ((n, a) for n in (7, 12) for a in cases(n)):
        mask = grid_mask((extent,), (window,), (stride,), (dilation,), (causal,))
        text = f"na:fwd:f32:b1h1kv1d1:{extent}:k{window}:s{stride}:d{dilation}:c{int(causal)}"
        for begin, end in itertools.combinations(range(extent + 1), 2):
            inside = [
                set(mask[q].nonzero().flatten().tolist()) <= set(range(begin, end)) for q in range(extent)
            ]
            ((low, high),) = _core.inner_queries(text, [(begin, end)], [(begin, end)])
            assert low >= high or (begin <= low and high <= end and all(inside[low:high])), text
            if dilation == 1 and low < high:
                assert not any(inside[q] for q in (*range(begin, low), *range(high, end)))
            if dilation == 1 and low >= high:
                assert not any(inside[begin:end])


def test_sizes_and_bytes():
    plan = ShardPlan((16, 10), 5, mesh_shape=(2,), shard_dims=(0,))
    assert plan.sizes == ((8, 8),) and plan.slab(1) == ((8, 16), (0, 10))
    assert plan.needed(0) == ((0, 10), (0, 10)) and plan.fetch(0) == {1: ((8, 10), (0, 10))}
    assert plan.inner(0) == ((0, 6), (0, 10)) and plan.send(0) == {1: ((6, 8), (0, 10))}
    halo = 2 * 10 * 4 * (32 + 16) * 2 * 3  # rows, columns, heads, channels, bytes, batch
    arguments = {"kv_heads": 4, "head_dim": 32, "value_dim": 16, "itemsize": 2, "batch": 3}
    assert plan.bytes_received(0, **arguments) == plan.bytes_sent(1, **arguments) == halo
    causal = ShardPlan((16, 10), 5, is_causal=(True, False), mesh_shape=(2,), shard_dims=(0,))
    assert causal.fetch(0) == {} and causal.fetch(1) == {0: ((4, 8), (0, 10))}


def test_a_wide_window_takes_several_hops():
    plan = ShardPlan((20,), 9, mesh_shape=(5,), shard_dims=0, sizes=[(4, 2, 2, 2, 10)])
    assert list(plan.fetch(2)) == [0, 1, 3, 4] and plan.fetch(2)[0] == ((2, 4),)
    assert plan.share(2).local == ()


def test_axes_in_another_order_than_the_mesh():
    plan = ShardPlan((8, 6), 3, mesh_shape=(3, 2), shard_dims=(1, 0))
    assert plan.slab(3) == ((4, 8), (2, 4)) and plan.coordinate(3) == (1, 1) and plan.rank_at((1, 1)) == 3


def test_printed_and_drawn():
    plan = ShardPlan((6, 8), 3, mesh_shape=(2, 2), shard_dims=(0, 1))
    assert plan.draw(0) == "###+1...\n###+1...\n++++1...\n22223...\n........\n........"
    lines = str(plan).splitlines()
    assert len(lines) == 5 and lines[0] == repr(plan)
    assert lines[1] == (
        "rank 0: 0-3x0-4, 12 tokens, 6 queries need only them; "
        "fetches 0-3x4-5 from 1, 3-4x0-4 from 2, 3-4x4-5 from 3: 8 tokens"
    )
    assert ShardPlan((6,), 3, mesh_shape=(2,), shard_dims=0).draw(1) == "..0+##"
    assert len(ShardPlan((2, 2, 2), 1, mesh_shape=(1,), shard_dims=0).draw(0).split("\n\n")) == 2


@pytest.mark.parametrize(
    "error, layout, window, more",
    [
        (ValueError, (8,), 9, {"mesh_shape": (2,), "shard_dims": (0,)}),
        (ValueError, (8,), 3, {"mesh_shape": (2,), "shard_dims": (1,)}),
        (ValueError, (8,), 3, {"mesh_shape": (2, 2), "shard_dims": (0,)}),
        (ValueError, (8, 8), 3, {"mesh_shape": (2, 2), "shard_dims": (1, 1)}),
        (ValueError, (8,), 3, {"mesh_shape": (0,), "shard_dims": (0,)}),
        (ValueError, (8,), 3, {"mesh_shape": (2,), "shard_dims": (0,), "sizes": [(4, 5)]}),
        (ValueError, (8,), 3, {"mesh_shape": (2,), "shard_dims": (0,), "sizes": [(9, -1)]}),
        (ValueError, (8,), 3, {"mesh_shape": (2,), "shard_dims": (0,), "sizes": [(8,)]}),
        (ValueError, (8,) * 4, 3, {"mesh_shape": (2,), "shard_dims": (0,)}),
        (TypeError, 8, 3, {"mesh_shape": (2,), "shard_dims": (0,)}),
        (TypeError, (8,), 3, {"mesh_shape": (2.0,), "shard_dims": (0,)}),
        (TypeError, (8,), 3, {"mesh_shape": (2,), "shard_dims": "0"}),
        (ValueError, (8,), 3, {"mesh_shape": (), "shard_dims": ()}),
        (TypeError, (8,), 3, {"mesh_shape": (2,), "shard_dims": (0,), "sizes": 3}),
        (TypeError, (8,), 3, {"mesh_shape": (2,), "shard_dims": (0,), "sizes": (3, 5)}),
        (TypeError, (8,), 3, {"mesh_shape": (2,), "shard_dims": (0,), "sizes": "35"}),
        (ValueError, (8,), 0, {"mesh_shape": (2,), "shard_dims": (0,)}),
        (ValueError, (8,), -3, {"mesh_shape": (2,), "shard_dims": (0,)}),
        (ValueError, (8,), 3, {"mesh_shape": (2,), "shard_dims": (0,), "stride": 4}),
        (ValueError, (8,), 3, {"mesh_shape": (2,), "shard_dims": (0,), "dilation": 3}),
        (ValueError, (-8,), 3, {"mesh_shape": (2,), "shard_dims": (0,)}),
        (ValueError, (2**70,), 3, {"mesh_shape": (2,), "shard_dims": (0,)}),
    ],
)
def test_errors(error, layout, window, more):
    with pytest.raises(error, match=r"^\[ShardPlan\] got .*expected"):
        ShardPlan(layout, window, **more)


def test_a_window_that_does_not_fit_names_its_axis():
    with pytest.raises(ValueError, match=r"^\[ShardPlan\] got kernel_size 9 .* on axis 1"):
        ShardPlan((8, 8), (3, 9), mesh_shape=(2,), shard_dims=0)


_OF_A_RANK = {
    "coordinate": {},
    "slab": {},
    "needed": {},
    "inner": {},
    "share": {},
    "fetch": {},
    "send": {},
    "draw": {},
    "bytes_received": {"kv_heads": 1, "head_dim": 1},
    "bytes_sent": {"kv_heads": 1, "head_dim": 1},
}


@pytest.mark.parametrize("method", _OF_A_RANK)
def test_only_ranks_are_asked_for(method):
    plan = ShardPlan((6, 8), 3, mesh_shape=(2, 2), shard_dims=(0, 1))
    ask, more = getattr(plan, method), _OF_A_RANK[method]
    for rank in (9, 4, -1):
        with pytest.raises(ValueError, match=rf"^\[ShardPlan\] got rank {rank}, expected 0 to 3$"):
            ask(rank, **more)
    for rank, kind in (("a", "str"), (1.0, "float"), (True, "bool"), (None, "NoneType"), ([1], "list")):
        with pytest.raises(TypeError, match=rf"^\[ShardPlan\] got rank of type {kind}, expected int$"):
            ask(rank, **more)
    ask(3, **more)


def test_only_places_of_the_mesh_have_ranks():
    plan = ShardPlan((6, 8), 3, mesh_shape=(2, 2), shard_dims=(0, 1))
    assert [plan.rank_at(plan.coordinate(r)) for r in range(4)] == [0, 1, 2, 3]
    for place in ((0, 2), (-1, 0), (0,), (0, 0, 0)):
        with pytest.raises(ValueError, match=r"^\[ShardPlan\] got coordinate .*expected a place in a mesh"):
            plan.rank_at(place)
    for place in (0, (0.0, 1), "01"):
        with pytest.raises(TypeError, match=r"^\[ShardPlan\] got coordinate .*expected"):
            plan.rank_at(place)


def test_plans_are_values():
    """Equal, and of one hash, where their arguments mean the same; copied and pickled as such."""

    def plan(window=3, mesh=(2, 1), dims=(0, 1), sizes=None, causal=False):
        return ShardPlan((6, 8), window, is_causal=causal, mesh_shape=mesh, shard_dims=dims, sizes=sizes)

    one = plan()
    one.share(1)  # what was computed on the way makes no difference
    for other in (plan([3, 3]), plan(sizes=[(3, 3), (8,)]), plan(causal=(False, False))):
        assert one == other and hash(one) == hash(other) and repr(one) == repr(other)
    for other in (
        plan(5),
        plan(mesh=(1, 2)),
        plan(dims=(1, 0)),
        plan(sizes=[(2, 4), (8,)]),
        plan(causal=True),
    ):
        assert one != other
    assert one != "plan" and one != one._given()
    for made in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert made == one and made is not one and hash(made) == hash(one) and str(made) == str(one)
        assert [made.share(r) for r in range(2)] == [one.share(r) for r in range(2)]
    assert {one: 1}[plan()] == 1


def test_intervals_that_only_touch_have_nothing_in_common():
    assert boxes.overlap((0, 4), (2, 9)) == boxes.overlap((2, 9), (0, 4)) == (2, 4)
    assert boxes.overlap((0, 4), (4, 9)) is None and boxes.overlap((0, 0), (0, 9)) is None
    assert boxes.intersection(((0, 4), (0, 4)), ((2, 9), (1, 3))) == ((2, 4), (1, 3))
    assert boxes.intersection(((0, 4), (0, 4)), ((2, 9), (4, 5))) is None


# ---- sequences


def zigzag(tokens, ranks, keys=None, causal=1):
    """As many keys as queries if nothing is said; causal 1: TopLeft, 2: BottomRight."""
    queries, keys = (
        parts_of("", "query", "zigzag", [sum(map(len, p)) for p in _slabs(n, ranks)], 1)
        for n in (tokens, tokens if keys is None else keys)
    )
    return Sequence.of(queries, keys, causal)


def visible_pairs(sequence, rank):
    """Of a rank's queries with all keys, as the core counts them."""
    held = [(a, b) for ((a, b),) in sequence.queries[rank] if a < b]
    return sum(int(_core.problem(f"{sequence.problem}:q={a}-{b}")["pairs"]) for a, b in held)


def _slabs(tokens, ranks):
    cuts = [len(x) for x in torch.arange(tokens).tensor_split(2 * ranks)]
    ends = list(itertools.accumulate(cuts, initial=0))
    slabs = [range(a, b) for a, b in itertools.pairwise(ends)]
    return [(slabs[r], slabs[2 * ranks - 1 - r]) for r in range(ranks)]


@pytest.mark.parametrize("ranks", range(1, 17))
def test_causal_work_is_balanced_in_a_zigzag(ranks):
    """Within 10 % of the mean from 20 tokens per rank on, and all pairs are somebody's."""
    for tokens in (*range(20 * ranks, 20 * ranks + 2 * ranks + 1), 1000):
        sequence = zigzag(tokens, ranks)
        work = [visible_pairs(sequence, rank) for rank in range(ranks)]
        assert sum(work) == tokens * (tokens + 1) // 2
        assert max(work) <= 1.1 * sum(work) / ranks, (tokens, work)
    held = [sorted(t for ((a, b),) in part for t in range(a, b)) for part in zigzag(1000, ranks).queries]
    assert held == [sorted((*a, *b)) for a, b in _slabs(1000, ranks)]


@pytest.mark.parametrize("causal", [1, 2])
@pytest.mark.parametrize("ranks", [2, 4, 7])
def test_more_keys_than_queries_are_balanced_too(ranks, causal):
    for queries, keys in itertools.product(range(20 * ranks, 22 * ranks, 3), (0, 1, 50, 333)):
        sequence = zigzag(queries, ranks, queries + keys, causal)
        work = [visible_pairs(sequence, rank) for rank in range(ranks)]
        assert max(work) <= 1.1 * sum(work) / ranks, (queries, keys, work)


def test_fewer_keys_than_queries_are_not():
    """What the documentation says of 256 queries over 64 keys on four ranks."""
    for causal, worst in ((1, 1.14), (2, 2.98)):
        sequence = zigzag(256, 4, 64, causal)
        work = [visible_pairs(sequence, rank) for rank in range(4)]
        assert max(work) / sum(work) * 4 == pytest.approx(worst, abs=0.01)


@pytest.mark.parametrize("pattern", ["contiguous", "zigzag"])
@pytest.mark.parametrize("causal", [0, 1, 2])
def test_a_ring_meets_every_visible_pair_once(pattern, causal):
    """At every step a rank has the keys of one other, and what it computes is what the mask says."""
    generator = random.Random(0)
    for ranks, queries, keys in ((1, 5, 7), (2, 9, 9), (3, 10, 14), (4, 14, 10), (5, 3, 4)):
        lengths = (queries, keys)
        mask = dense_mask(queries, keys, (None, "tl", "br")[causal])
        if pattern == "zigzag":
            cuts = [[sum(map(len, p)) for p in _slabs(n, ranks)] for n in lengths]
        else:
            cuts = [generator.choice(compositions(n, ranks)) for n in lengths]
        sides = [parts_of("", "x", pattern, c, 1) for c in cuts]
        sequence, met = Sequence.of(*sides, causal), torch.zeros_like(mask, dtype=torch.int)
        for rank in range(ranks):
            ring = ring_of(sequence, rank)
            for step, tasks in enumerate(ring.tasks):
                assert not tasks or step <= ring.last[(rank - step) % ranks]
                for ((a, b),), ((c, d),) in tasks:
                    met[a:b, c:d] += 1
                    assert any(k[0][0] <= c and d <= k[0][1] for k in sides[1][(rank - step) % ranks])
        assert met.max() <= 1 and bool((met.bool() | ~mask).all())
