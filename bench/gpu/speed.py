# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""nearfield on a GPU beside PyTorch's dense attention and compiled FlexAttention, interleaved in one run.

    python bench/gpu/speed.py [FILE] [--only 3d,2d] [--rounds 15] [--seconds 300] [--out results.json]
    python bench/gpu/speed.py --show results.json       the table of a run, of one that was cut off too

Medians of CUDA events over rounds in which every contestant runs once: as often in a row as fills a
millisecond, behind a pause in which the host gets ahead of the device. `cudnn` and `flash` compute all pairs,
with keys and values repeated for grouped heads; `flex` has the equivalent block mask and tokens in tiles of
128. Neither that nor the copies into the layout that a peer likes best are timed. Results are compared first:
who differs is no peer. TFLOP/s: of useful work. `bound`: how many times fewer pairs there are than dense
attention computes; `fraction`: of it, the speed-up over cuDNN. A row ends early after 6 seconds, and none
begins after --seconds. FILE: one of bench/problems, `gpu` unless told. --device cpu times nothing of worth:
this program itself is checked.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import statistics
import sys
import time
from pathlib import Path

BENCH = Path(__file__).resolve().parents[1]
FLEX_TILES = {1: None, 2: (8, 16), 3: (4, 4, 8)}
COLUMNS = (("cudnn", 10), ("flash", 10), ("flex", 9))
PAUSE = 400_000  # cycles of the device per call, some 0.2 ms: a backward call of PyTorch takes the host less
MOST = {"row": 6.0, "flex": 0.7}  # seconds of a row; the share of --seconds after which nothing is compiled


def contestants():
    """name -> (class, settings of a problem)."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    sys.path.insert(0, str(BENCH))
    from peers.ours import Nearfield

    from nearfield.tools.peers import Absent
    from nearfield.tools.peers.flex import Flex
    from nearfield.tools.peers.sdpa import DenseSdpa

    class Forced(DenseSdpa):
        """One of SDPA's kernels and no other. Not each takes grouped heads."""

        backend = None

        def __init__(self, problem):
            super().__init__(problem)
            self.arguments["enable_gqa"] = False

        def to_own(self, x, of_query):
            copies = 1 if of_query else self.problem.heads // self.problem.kv_heads
            return super().to_own(x.repeat_interleave(copies, dim=-2), of_query)

        def attend(self, query, key, value):
            with sdpa_kernel([self.backend]):
                return super().attend(query, key, value)

    def forced(kernel):
        return type(kernel.name, (Forced,), {"backend": kernel})

    def of_flex(problem):
        if problem.dense:
            return {"tile": None, "block": None}
        if any(n > 1 for n in problem.dilation):
            raise Absent("dilation: tiles would have to be those of a group")
        return {"tile": FLEX_TILES[len(problem.layout)], "block": (128, 128)}

    return {
        "nearfield": (Nearfield, lambda p: {}),
        "cudnn": (forced(SDPBackend.CUDNN_ATTENTION), lambda p: {}),
        "flash": (forced(SDPBackend.FLASH_ATTENTION), lambda p: {}),
        "flex": (Flex, of_flex),
    }


class Row:
    """The contestants of one problem in one direction."""

    def __init__(self, problem, direction, device, note):
        import torch

        self.problem, self.direction, self.device, self.note = problem, direction, device, note
        torch.manual_seed(0)
        p = problem
        shapes = [(p.layout, p.heads, p.dim), (p.key_layout, p.kv_heads, p.dim)]
        shapes += [(p.key_layout, p.kv_heads, p.value_dim), (p.layout, p.heads, p.value_dim)]
        self.tensors = [
            torch.randn(p.batch, *layout, h, d, device=device).to(p.dtype) for layout, h, d in shapes
        ]
        self.steps, self.own = {}, None

    def enter(self, name, kind, settings) -> None:
        """Warms a contestant up and compares it. One that cannot is a gap of the table, not the end of it."""
        import torch

        from nearfield.tools.measure import AGREEMENT

        try:
            with torch.device(self.device):  # the tables of peers, too
                peer = kind(self.problem, **settings(self.problem)).load(*self.tensors)
            results = peer.results(self.direction)
            if name == "nearfield":
                self.own = results
                if not all(x.isfinite().all() for x in results):
                    raise ValueError("results that are not finite")
            elif self.own and (name == "flex" or self.problem.dense) and self._same_heads(results):
                for a, b in zip(results, self.own, strict=True):
                    worst = (a.float() - b.float()).abs().max() / b.float().abs().max().clamp(min=1.0)
                    if not worst <= AGREEMENT[self.problem.dtype]:
                        raise ValueError(f"it differs by {worst:.1e} from nearfield: no peer")
            step = peer.forward if self.direction == "fwd" else peer.backward
            step()
            self.steps[name] = (step, max(1, min(100, round(1 / max(self._ms(step, 1), 0.01)))))
        except Exception as e:
            self.note(name, f"{type(e).__name__}: {str(e).splitlines()[0][:160] if str(e) else ''}")

    def _same_heads(self, results) -> bool:
        return all(a.shape == b.shape for a, b in zip(results, self.own, strict=True))

    def _ms(self, step, calls) -> float:
        """Milliseconds of a call."""
        import torch

        if self.device == "cpu":
            begin = time.perf_counter()
            for _ in range(calls):
                step()
            return (time.perf_counter() - begin) * 1e3 / calls
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        torch.cuda._sleep(calls * PAUSE)
        begin.record()
        for _ in range(calls):
            step()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / calls

    def measure(self, rounds) -> dict[str, float]:
        """name -> milliseconds, medians."""
        times, begin = {name: [] for name in self.steps}, time.monotonic()
        for i in range(rounds):
            if i >= 3 and time.monotonic() - begin > MOST["row"]:
                break
            for name, (step, calls) in self.steps.items():
                times[name].append(self._ms(step, calls))
        return {name: statistics.median(t) for name, t in times.items()}


def host_times(device, calls=500) -> dict[str, float]:
    """Microseconds of the host per forward call, medians, with a plan that is known: tensors are so small
    that the device is done before the host. `operator`: na2d without its Python."""
    import torch
    import torch.nn.functional as F

    import nearfield as nf
    from nearfield import _core, _ops

    q, k, v = torch.randn(3, 1, 16, 16, 2, 64, device=device, dtype=torch.bfloat16)
    flat = [x.flatten(1, 2).transpose(1, 2) for x in (q, k, v)]
    config = _ops.Config(function=_core.FUNCTIONS.index("na2d"), axes=(7, 1, 1, 0) * 2)
    steps = {
        "operator": lambda: _ops.forward(q, k, v, None, None, None, *config),
        "na2d": lambda: nf.na2d(q, k, v, 7),
        "attention": lambda: nf.attention(q.flatten(1, 2), k.flatten(1, 2), v.flatten(1, 2)),
        "sdpa": lambda: F.scaled_dot_product_attention(*flat),
    }
    result = {}
    with torch.no_grad():
        for name, step in steps.items():
            times = []
            for _ in range(calls):
                begin = time.perf_counter()
                step()
                times.append(time.perf_counter() - begin)
                if device == "cuda":
                    torch.cuda.synchronize()
            result[name] = statistics.median(times[calls // 10 :]) * 1e6
    return result


def machine(device) -> dict:
    import torch

    import nearfield as nf

    name = torch.cuda.get_device_name() if device == "cuda" else device
    found = {"device": name, "date": datetime.date.today().isoformat(), "nearfield": nf.__version__}
    found |= {"torch": torch.__version__, "cuda": torch.version.cuda}
    return found | {"cudnn": torch.backends.cudnn.version() if device == "cuda" else None}


def table(run: dict) -> str:
    """Of what --out has."""
    m = run["machine"]
    lines = [*run["notes"], "host time per call, us: " + _numbers(run["host_us"])]
    lines.append(f"\n{m['device']}, torch {m['torch']}, cuDNN {m['cudnn']}, {m['date']}")
    lines.append(
        f"{'problem':16}{'nearfield ms':>13}{'TFLOP/s':>9}"
        + "".join(f"{name + ' ms':>{width}}" for name, width in COLUMNS)
        + f"{'x cudnn':>9}{'bound':>7}{'fraction':>9}{'x flex':>8}"
    )
    for row in run["rows"]:
        ms = row["ms"]
        own = ms.get("nearfield")
        line = f"{row['name'] + ' ' + row['direction']:16}"
        line += f"{own:13.3f}{row['flops'] / own / 1e9:9.1f}" if own else f"{'-':>13}{'-':>9}"
        line += "".join(
            f"{ms[name]:{width}.3f}" if name in ms else f"{'-':>{width}}" for name, width in COLUMNS
        )
        gain = ms["cudnn"] / own if own and "cudnn" in ms else None
        line += f"{gain:9.2f}" if gain else f"{'-':>9}"
        line += f"{row['bound']:7.2f}" + (f"{gain / row['bound']:9.2f}" if gain else f"{'-':>9}")
        lines.append(line + (f"{ms['flex'] / own:8.2f}" if own and "flex" in ms else f"{'-':>8}"))
    return "\n".join(lines)


def _numbers(times: dict[str, float]) -> str:
    return ", ".join(f"{name} {us:.1f}" for name, us in times.items()) or "not measured"


def main() -> None:
    start = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", nargs="?", default="gpu", help="of problems, or a name in bench/problems")
    parser.add_argument("--only", type=lambda s: set(s.split(",")), help="names of that file, by commas")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--out", type=Path, help="written anew after every row")
    parser.add_argument(
        "--show", type=Path, metavar="OUT", help="print the table of a run and do nothing else"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    arguments = parser.parse_args()
    if arguments.show:
        print(table(json.loads(arguments.show.read_text())))
        return

    import torch

    from nearfield import _core
    from nearfield.tools import problems

    file = Path(arguments.file)
    file = file if file.exists() else BENCH / "problems" / file.with_suffix(".txt")
    run = {"machine": machine(arguments.device), "host_us": {}, "rows": [], "notes": []}

    def note(text):
        run["notes"].append(text)
        print(text, flush=True)

    def note_of(row, name, why):
        note(f"{row} {name}: {why}")

    def save():
        if arguments.out:
            fresh = arguments.out.with_suffix(".new")
            fresh.write_text(json.dumps(run, indent=1) + "\n")
            fresh.replace(arguments.out)

    save()
    try:
        run["host_us"] = host_times(arguments.device)
    except Exception as e:
        note(f"host times: {type(e).__name__}: {e}")
    kinds = contestants()
    for p in problems.read(file, arguments.only):
        for direction, text in p.texts.items():
            used = (time.monotonic() - start) / arguments.seconds
            if used > 1:
                note(f"{p.name} {direction}: no time left")
                continue
            row = Row(p, direction, arguments.device, functools.partial(note_of, f"{p.name} {direction}"))
            for name, (kind, settings) in kinds.items():
                if name == "flex" and used > MOST["flex"]:
                    note(f"{p.name} {direction} flex: no time left to compile it")
                else:
                    row.enter(name, kind, settings)
            try:
                ms = row.measure(arguments.rounds)
            except Exception as e:  # the device is lost: so are later rows, and not the earlier ones
                note(f"{p.name} {direction}: {type(e).__name__}: {str(e).splitlines()[0]}")
                ms = {}
            said = _core.problem(text)
            found = {"name": p.name, "direction": direction, "problem": text, "ms": ms}
            run["rows"].append(found | {"flops": said["flops"], "bound": said["sparsity"]})
            print(f"{time.monotonic() - start:6.0f} s  {text}  {_numbers(ms)} (ms)", flush=True)
            save()
            del row
            if arguments.device == "cuda":
                torch.cuda.empty_cache()
    save()
    print(table(run))


if __name__ == "__main__":
    main()
