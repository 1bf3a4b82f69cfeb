# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The parser of problem strings against random and mutated text: a canonical fixpoint or a ValueError."""

from conftest import FULL
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_core import PROBLEMS

from nearfield import _core

EXAMPLES = 20000 if FULL else 400
ALPHABET = "nafwdbthkvsclrqgx0123456789:+-,.=~@_ "


def _fixpoint(text):
    """Parses, or says why not; what parses prints as something that parses to itself."""
    try:
        answer = _core.problem(text)
    except ValueError as error:
        assert str(error)
        return None
    again = _core.problem(answer["problem"])
    assert again == answer, text
    return answer["problem"]


@settings(max_examples=EXAMPLES)
@given(st.one_of(st.text(max_size=60), st.text(ALPHABET, max_size=60)))
def test_random_text(text):
    _fixpoint(text)


@st.composite
def _mutated(draw):
    """A valid string with a few characters removed, replaced, doubled, or a field moved."""
    text = draw(st.sampled_from(PROBLEMS))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        end = min(len(text), at + draw(st.integers(0, 3)))
        kind = draw(st.integers(0, 4))
        if kind == 0:
            text = text[:at] + text[end:]
        elif kind == 1:
            text = text[:at] + draw(st.text(ALPHABET, max_size=3)) + text[end:]
        elif kind == 2:
            text = text[:end] + text[at:]
        elif kind == 3:
            number = st.sampled_from(
                ["0", "1", "2", "99999999999999999999", "2147483647", "-1", "1e5", "0.5", "nan"]
            )
            text = text[:at] + draw(number) + text[end:]
        else:
            fields = text.split(":")
            fields.insert(draw(st.integers(0, len(fields))), draw(st.sampled_from(fields)))
            text = ":".join(fields)
    return text


@settings(max_examples=EXAMPLES)
@example("na:fwd:f32:b1h1kv1d8:10:k3:scale=-0.0")
@example("na:fwd:f32:b1h1kv1d8:10:k3:scale=1e-320")
@example("na:fwd:f32:b9223372036854775807h1kv1d8:10:k3")
@example("na:fwd:f32:b1h1kv1d8:2147483647x2147483647x2147483647:k1x1x1")
@example("na:fwd:f32:b1h1kv1d8:" + "+".join(["3"] * 1000) + ":k1")
@given(_mutated())
def test_mutated_strings(text):
    _fixpoint(text)


@st.composite
def _valid(draw):
    """A legal problem, its fields in the order of the grammar, defaults sometimes spelled out."""
    rank = draw(st.integers(1, 3))
    count = draw(st.sampled_from([1, 1, 1, 2, 3]))
    axes = [[draw(st.integers(1, 30)) for _ in range(rank)] for _ in range(count)]
    smallest = [min(g[a] for g in axes) for a in range(rank)]
    dilation = [draw(st.integers(1, min(3, n))) for n in smallest]
    window = [draw(st.integers(1, n // d)) for n, d in zip(smallest, dilation, strict=True)]
    stride = [draw(st.integers(1, k)) for k in window]

    def join(x):
        return "x".join(map(str, x))

    kv, group = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    text = (
        f"na:{draw(st.sampled_from(['fwd', 'bwd']))}:{draw(st.sampled_from(['f32', 'f64', 'bf16', 'f16']))}"
    )
    batch = 1 if count > 1 else draw(st.integers(0, 4))
    text += f":b{batch}h{kv * group}kv{kv}d{draw(st.integers(1, 300))}v{draw(st.integers(1, 300))}"
    text += f":{'+'.join(map(join, axes))}:k{join(window)}"
    text += f":s{join(stride)}" if draw(st.booleans()) or stride else ""
    text += f":d{join(dilation)}:c{''.join(draw(st.sampled_from('01')) for _ in range(rank))}"
    if count == 1 and draw(st.booleans()):
        text += f":add={draw(st.integers(0, 100))}"
    text += draw(st.sampled_from(["", ":lse"]))
    if draw(st.booleans()):
        text += f":scale={draw(st.floats(allow_nan=False, allow_infinity=False, width=32))!r}"
    return text


@settings(max_examples=EXAMPLES // 2)
@given(_valid())
def test_valid_strings(text):
    canonical = _fixpoint(text)
    assert canonical is not None, text
    assert len(canonical) <= len(text)
