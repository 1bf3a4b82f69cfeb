#!/usr/bin/env bash
# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
#
# A wheel, built in pip's isolation, works in a new environment that holds torch and nothing else of ours.
set -euo pipefail
cd "$(dirname "$0")/../.."

out=$PWD/build/wheel-test
python=${VENV:-.venv}/bin/python
rm -rf "$out"
mkdir -p "$out"
"$python" -m pip wheel --disable-pip-version-check --no-deps --wheel-dir "$out" .
ls "$out"/nearfield-*-py3-none-*.whl

"$python" -m venv "$out/venv"
version=$("$python" -c 'import importlib.metadata as m; print(m.version("torch"))')
"$out/venv/bin/python" -m pip install --disable-pip-version-check "torch==$version" "$out"/nearfield-*.whl
cd "$out"  # away from the sources
venv/bin/python -W ignore - <<'PY'
import torch
import nearfield as nf

q = torch.randn(1, 9, 9, 2, 8, requires_grad=True)
out, lse = nf.na2d(q, q, q, kernel_size=3, return_lse=True)
(out.sum() + lse.sum()).backward()
assert out.shape == q.shape and lse.shape == q.shape[:-1] and q.grad.isfinite().all()
ones = nf.na2d(q, q, torch.ones_like(q), kernel_size=(3, 5))
torch.testing.assert_close(ones, torch.ones_like(q))
print("OK: nearfield", nf.__version__, "on torch", torch.__version__)
PY
venv/bin/nearfield --help
