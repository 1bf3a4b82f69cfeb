# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The operators below the Python functions: what exported graphs and torch itself may hand them."""

import pytest
import torch
from cases import dense, na
from conftest import FULL
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from nearfield import _core, _ops

LEGAL = (ValueError, TypeError, NotImplementedError, IndexError)


def _legal():
    """Tensors and arguments of a legal forward call: na1d, 6 tokens, GQA, two additional keys."""
    q, k, v, ak, av = na((6,), (3,), kv_heads=1, additional=2, dim=4, value_dim=3).inputs()
    return (q, k, v, ak, av, None), _ops.Config(axes=(3, 1, 1, 0))


def _backward_arguments():
    tensors, config = _legal()
    out, lse = _ops.forward(*tensors, *config)
    return [torch.ones_like(out), torch.ones_like(lse), *tensors[:3], out, lse, *tensors[3:]], config


def test_schema_is_functional_and_names_its_results():
    for op in (torch.ops.nearfield.forward.default, torch.ops.nearfield.backward.default):
        schema = op._schema
        assert not schema.is_mutable and not any("str" in str(a.type) for a in schema.arguments)
    assert [r.name for r in torch.ops.nearfield.forward.default._schema.returns] == ["out", "lse"]


@pytest.mark.parametrize(
    "change",
    [
        {"axes": ()}, {"axes": (3, 1, 1)}, {"axes": (3, 1, 1, 0, 3, 1, 1, 0)}, {"axes": (3, 1, 1, 2)},
        {"axes": (3, 1, 1, -1)}, {"function": -1}, {"function": 99}, {"function": 2**62}, {"function": 3},
        {"causal_type": 1}, {"causal_type": 4}, {"causal_type": -1}, {"backend": -1}, {"backend": 99},
        {"backend": -(2**63)}, {"tiles": (1, 1)}, {"tiles": (-1,) * 12}, {"tiles": (2**62,) * 12},
        {"grids": (1,)}, {"grids": (2**62, 3, 1, 1, 0)}, {"grids": (6, 3, 1, 1, 0, 1)}, {"ranges": (6,)},
        {"ranges": (6, 2**62, 0)}, {"ranges": (6, -1, 0)}, {"ranges": (2**62, 0, 0)}, {"flags": -1},
        {"flags": 2**62}, {"scale": float("nan")}, {"scale": float("inf")}, {"dropout_p": float("nan")},
        {"dropout_p": -1.0}, {"offsets_query": torch.tensor([0, 6])},
        {"seed": torch.tensor(3)},
    ],
    ids=str,
)  # fmt: skip
def test_bad_arguments_of_the_operator(change):
    """An error, or the result of the call without the argument; the fake implementation agrees."""
    tensors, config = _legal()
    plain = _ops.forward(*tensors, *config)
    outcomes = []
    for device in ("cpu", "meta"):
        try:
            moved = (t if t is None else t.to(device) for t in tensors)
            outcomes.append(_ops.forward(*moved, *config._replace(**change)))
        except LEGAL as error:
            outcomes.append(error)
            assert "[" in str(error) and "expected" in str(error), error
    if isinstance(outcomes[0], Exception):
        return
    assert all(torch.equal(a, b) for a, b in zip(outcomes[0], plain, strict=True))


def test_backward_checks_every_tensor():
    """Wrong shapes and dtypes in any place, and missing tensors: refused before memory is read."""
    arguments, config = _backward_arguments()
    _ops.backward(*arguments, *config)
    for place, x in enumerate(arguments[:-1]):
        for bad in (
            x[:, :1],
            x[..., :1],
            x[None],
            x.double(),
            x.long(),
            x[:0],
            x.new_empty(()),
        ):
            changed = [*arguments[:place], bad, *arguments[place + 1 :]]
            with pytest.raises(LEGAL, match=r"^\[na1d\] got .*expected"):
                _ops.backward(*changed, *config)
    for place in (7, 8):
        with pytest.raises(LEGAL, match="additional"):
            _ops.backward(*arguments[:place], None, *arguments[place + 1 :], *config)


def test_backward_takes_any_strides():
    arguments, config = _backward_arguments()
    expected = _ops.backward(*arguments, *config)
    moved = [x if x is None else x.movedim(1, -1).contiguous().movedim(-1, 1) for x in arguments]
    for a, b in zip(_ops.backward(*moved, *config), expected, strict=True):
        torch.testing.assert_close(a, b)


NUMBERS = st.one_of(st.integers(-2, 9), st.sampled_from([2**31, 2**62, -(2**63), 2**63 - 1]))


@st.composite
def _changes(draw):
    """A few fields of the configuration replaced by what no Python function would pass."""
    change = {}
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(["axes", "grids", "ranges", "tiles", "function", "causal_type", "backend",
                                     "flags", "scale", "offsets"]))  # fmt: skip
        if name in ("axes", "grids", "ranges", "tiles"):
            change[name] = tuple(draw(st.lists(NUMBERS, max_size=14)))
        elif name == "scale":
            change[name] = draw(st.floats())
        elif name == "offsets":
            lists = st.lists(NUMBERS, max_size=4)
            dtype = draw(st.sampled_from([torch.int32, torch.int64, torch.float32]))
            for side in ("offsets_query", "offsets_key"):
                values = [max(min(n, 2**31 - 1), -(2**31)) for n in draw(lists)]
                change[side] = torch.tensor(values, dtype=dtype)
        else:
            change[name] = draw(NUMBERS)
    return change


@settings(max_examples=10000 if FULL else 300)
@given(_changes(), st.booleans())
def test_random_arguments_of_the_operators(change, small):
    """Any result or any of our errors, forward and backward; the process lives."""
    arguments, config = _backward_arguments()
    if small:  # one sequence, no additional keys: what packed sequences need
        arguments[7:9] = [None, None]
    config = config._replace(**change)
    for op, tensors in ((_ops.forward, [*arguments[2:5], *arguments[7:]]), (_ops.backward, arguments)):
        try:
            op(*tensors, *config)
        except LEGAL as error:
            assert str(error)


@pytest.mark.parametrize(
    "case",
    [na((8, 9), (3, 4), dilation=(2, 1), kv_heads=1), na((9,), (3,), additional=2), dense(5, 7, "br")],
    ids=str,
)
def test_flop_counter_counts_useful_work(case):
    pairs = case.mask().sum().item() + (case.additional or 0) * case.mask().shape[0]
    useful = 2 * (case.dim + case.value_dim) * pairs * case.heads * case.batch
    leaves = case.inputs(requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        out, lse = case.call(leaves)
        forward = counter.get_total_flops()
        (out.sum() + lse.sum()).backward()
    assert forward == useful
    assert counter.get_total_flops() == int(3.5 * useful)


def test_problem_strings_name_calls():
    """What verbose logs and bug reports print is what the parser takes."""
    tensors, config = _legal()
    text = _ops.problem_string(*tensors, config)
    assert text == _core.problem(text)["problem"]
    assert text.startswith("na:fwd:f32:b1h2kv1d4v3:6:k3:add=2")


def test_a_meta_tensor_among_real_ones_is_refused():
    """Else the shape-only implementation would answer with memory that nobody filled."""
    (arguments, config), (tensors, _) = _backward_arguments(), _legal()
    with pytest.raises(ValueError, match="expected one device"):
        _ops.backward(arguments[0].to("meta"), *arguments[1:], *config)
    with pytest.raises(ValueError, match="expected one device"):
        _ops.forward(*tensors, *config._replace(seed=torch.zeros(1, device="meta")))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("[na1d] got kernel_size 6, expected at most 5", ValueError),
        ("std::bad_alloc", MemoryError),
        ("[run] na:fwd: out of memory (2)", RuntimeError),
    ],
)
def test_refusals_are_value_errors_also_where_pytorch_makes_runtime_errors_of_all(text, expected):
    """As PyTorch 2.15 does, whatever an operator throws."""

    def throws(*arguments):
        raise RuntimeError(text)

    with pytest.raises(Exception) as caught:
        _ops._callable(throws)(1, 2)
    assert type(caught.value) is expected and (expected is MemoryError or str(caught.value) == text)
