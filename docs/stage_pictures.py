# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""From call to kernel: `python docs/stage_pictures.py` writes docs/images/stages.svg."""

import math

from make_pictures import GREY, INK, PLAIN, SEEN, SHARED, svg, text, write


def stages() -> str:
    """From a call to a kernel: guests, stages, and who answers them."""

    def box(left, up, width, title, words, fill):
        size = f'width="{width}" height="{22 + 16 * len(words)}"'
        lines = [f'<rect x="{left}" y="{up}" {size} rx="4" fill="{fill}"/>']
        lines.append(text(left + 8, up + 16, title, bold=True))
        return lines + [text(left + 8, up + 32 + 16 * i, w) for i, w in enumerate(words)]

    def arrow(x0, y0, x1, y1):
        angle = math.degrees(math.atan2(y1 - y0, x1 - x0))
        return [
            f'<path d="M{x0} {y0}L{x1} {y1}" stroke="{INK}" fill="none"/>',
            f'<path d="M0 0l-7 -4v8z" transform="translate({x1} {y1}) rotate({angle:.1f})"/>',
        ]

    guests = (
        ("PyTorch, Python", ("tensors, autograd", "torch.compile")),
        ("libtorch", ("nearfield/torch.h",)),
        ("C++, C", ("your own memory", "and threads")),
    )
    steps = (
        ("Request", ("the call", "as it was made"), PLAIN),
        ("Problem", ("checked, canonical:", "one line of text"), PLAIN),
        ("Plan", ("backend, kernel,", "tiles, scratch"), PLAIN),
    )
    backends = ("cuda_sm80", "cpu", "reference")
    parts = []
    for i, (title, words) in enumerate(guests):
        parts += box(16, 16 + 66 * i, 132, title, words, GREY)
        parts += arrow(148, 40 + 66 * i, 182, 88 + 12 * i)
    for i, (title, words, fill) in enumerate(steps):
        parts += box(186 + 160 * i, 74, 132, title, words, fill)
        parts += arrow(318 + 160 * i, 100, 342 + 160 * i, 100) if i < 2 else []
    for i, name in enumerate(backends):
        parts += box(692, 30 + 58 * i, 132, name, ("run: out, lse",), SEEN if name == "cpu" else PLAIN)
        parts += arrow(638, 100, 688, 50 + 58 * i)
    parts += box(
        186,
        178,
        452,
        "geometry.h",
        ("intervals, hulls, cores, tile pairs, exact counts: asked by all of them",),
        SHARED,
    )
    for x in (412, 572):
        parts += arrow(x, 178, x, 132)
    parts.append(f'<path d="M638 197H758" stroke="{INK}"/>')
    parts += arrow(758, 197, 758, 188)
    return svg(840, 236, parts)


PICTURES = {"stages.svg": stages}

if __name__ == "__main__":
    write(PICTURES)
