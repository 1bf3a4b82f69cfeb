# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Under torch, torch's own threads do the work: nearfield starts none and brings no second pool of OpenMP."""

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads in /proc")

PROBE = """
    import os, sys, time, torch

    def threads():
        return set(os.listdir("/proc/self/task"))

    def seconds(thread):  # that it has run
        with open(f"/proc/self/task/{thread}/stat") as f:
            fields = f.read().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def pools():  # runtimes of OpenMP
        with open("/proc/self/maps") as f:
            files = {line.split()[-1] for line in f}
        return sorted(x for x in files if any(name in x for name in ("libgomp", "libomp", "libiomp")))

    torch.set_num_threads(COUNT)
    x = torch.ones(1 << 22, requires_grad=True)
    (x * 2).sum().backward()  # torch's threads have started now
    before, pools_before = threads(), pools()

    import nearfield

    def call():
        leaves = [torch.randn(1, 64, 64, 4, 32, requires_grad=True) for _ in range(3)]
        out = nearfield.na2d(*leaves, kernel_size=7)
        out.sum().backward()

    call()
    assert threads() == before, (sorted(before), sorted(threads()))
    assert pools() == pools_before, (pools_before, pools())
    ran = {t: seconds(t) for t in before}
    until = time.monotonic() + 60
    while True:  # until all of them have had a share, which is at once where there are as many cores
        call()
        busy = [t for t in before if seconds(t) > ran[t]]
        if len(busy) == COUNT or time.monotonic() > until:
            break
    assert threads() == before
    assert len(busy) == COUNT, (busy, before)
    print("good")
"""


@pytest.mark.parametrize("count", [1, 3])
def test_only_the_threads_of_torch_work(count):
    code = textwrap.dedent(PROBE).replace("COUNT", str(count))
    # A pool of our own would obey this variable.
    env = os.environ | {"NEARFIELD_NUM_THREADS": "5", "OMP_WAIT_POLICY": "PASSIVE"}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300)
    assert (run.returncode, run.stdout) == (0, "good\n"), run.stdout + run.stderr
