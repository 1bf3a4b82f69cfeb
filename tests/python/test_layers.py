# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The layer check finds what it should in small bad trees, lets small good ones pass, and passes here."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "check_layers.py"

if not SCRIPT.is_file():
    pytest.skip("not in a checkout", allow_module_level=True)

spec = importlib.util.spec_from_file_location("check_layers", SCRIPT)
layers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(layers)

# Headers for the small trees to include.
SCENERY = [
    *(f"include/nearfield/{name}.h" for name in ("geometry", "problem", "plan", "attention", "torch")),
    "src/runtime/environment.h",
    "src/problem/message.h",
    "src/plan/tiles.h",
    "src/reference/reference.h",
    "src/cpu/cpu.h",
    "src/cuda/launch.h",
    "src/cuda/ptx/mma.h",
    "src/cuda/sm80/forward.h",
    "src/cuda/sm90/forward.h",
    "src/dispatch/table.h",
    *(
        f"python/nearfield/{name}.py"
        for name in ("__init__", "_ops", "_core", "functional", "modules", "varlen")
    ),
    *(f"python/nearfield/{name}/__init__.py" for name in ("compat", "distributed", "tools")),
]


def violations(tree: Path, path: str, text: str) -> list[str]:
    for name in SCENERY:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("")
    (tree / path).parent.mkdir(parents=True, exist_ok=True)
    (tree / path).write_text(text)
    return layers.check(tree)[1]


GOOD = {
    "downwards": ("src/cpu/run.cc", '#include "cpu/cpu.h"\n#include "nearfield/plan.h"\n#include <vector>\n'),
    "beside": ("src/cpu/run.cc", '#include "cpu.h"\n#include "lanes.h"\n'),
    "highway": ("src/cpu/run.cc", "#include <hwy/highway.h>\n"),
    "table": ("src/dispatch/table.cc", '#include "cpu/cpu.h"\n#include "reference/reference.h"\n'),
    "ptx": (
        "src/cuda/sm90/forward.cu",
        '#include "cuda/ptx/mma.h"\n#include "cuda/launch.h"\n#include <cuda.h>\n',
    ),
    "cuda table": ("src/cuda/all.cc", '#include "cuda/sm80/forward.h"\n'),
    "torch": (
        "bindings/torch/ops.cc",
        '#include <torch/csrc/stable/library.h>\n#include "nearfield/attention.h"\n',
    ),
    "torch.h": ("include/nearfield/torch.h", "#include <ATen/ATen.h>\n"),
    "torch/": (
        "include/nearfield/torch/file.h",
        '#include <caffe2/serialize/inline_container.h>\n#include "nearfield/problem.h"\n',
    ),
    "asm": ("src/cuda/ptx/mma.h", 'asm volatile("mma;" : : );\n'),
    "pin": ("src/cpu/run.cc", 'void f(float& x) { asm volatile("" : "+x"(x)); }\n'),
    "getenv": ("src/runtime/environment.cc", 'auto e = std::getenv("X");\n'),
    "comment": (
        "src/plan/a.cc",
        '// getenv, asm\n/* #include "cpu/cpu.h" */ const char* s = "asm getenv // ";\n',
    ),
    "digits": ("src/plan/a.cc", "int n = 1'000'000;  // asm\n"),
    "tests see all": ("tests/cpp/a.cc", '#include "cpu/cpu.h"\n#include "problem/message.h"\n'),
    "functional": ("python/nearfield/functional.py", "from . import _core, _ops, varlen\nimport torch\n"),
    "modules": (
        "python/nearfield/modules.py",
        "from nearfield.functional import na1d\nfrom . import distributed\n",
    ),
    "front": ("python/nearfield/tools/cli.py", "import nearfield as nf\nfrom nearfield import na2d, _core\n"),
    "ops": ("python/nearfield/_ops.py", "import torch\nf = torch.ops.nearfield.forward\n"),
    "core": ("python/nearfield/_core.py", "import ctypes\n"),
    "main": ("python/nearfield/__main__.py", "from .tools.cli import main\n"),
    "init": ("python/nearfield/__init__.py", "from . import functional, modules\n"),
}

BAD = {
    "upwards": ("src/runtime/a.cc", '#include "nearfield/problem.h"\n', "layer 0"),
    "upwards to plan": ("src/problem/a.cc", '#include "plan/tiles.h"\n', "layer 1"),
    "relative path": ("src/problem/a.cc", '#include "../plan/tiles.h"\n', "layer 1"),
    "geometry": ("include/nearfield/geometry.h", '#include "nearfield/plan.h"\n', "layer 0"),
    "api in a backend": ("src/reference/a.cc", "#include <nearfield/attention.h>\n", "layer 3"),
    "cpu to reference": ("src/cpu/a.cc", '#include "reference/reference.h"\n', "never include each other"),
    "reference to cuda": ("src/reference/a.cc", '#include "cuda/ptx/mma.h"\n', "never include each other"),
    "sm80 to sm90": ("src/cuda/sm80/a.cu", '#include "../sm90/forward.h"\n', "never include each other"),
    "backend named": ("src/dispatch/api.cc", '#include "cpu/cpu.h"\n', "only src/dispatch/table.cc"),
    "backend in binding": ("bindings/torch/a.cc", '#include "cpu/cpu.h"\n', "only src/dispatch/table.cc"),
    "private in public": ("include/nearfield/plan.h", '#include "plan/tiles.h"\n', "not installed"),
    "private in example": ("examples/a.cc", '#include "../src/plan/tiles.h"\n', "public headers only"),
    "no such header": ("src/plan/a.cc", '#include "nearfield/plans.h"\n', "no such header"),
    "no room": ("src/extra/a.cc", "", "in no room"),
    "new public header": ("include/nearfield/extra.h", "", "in no room"),
    "torch": ("src/dispatch/a.cc", "#  include <torch/library.h>\n", "torch may be included only in"),
    "c10": ("include/nearfield/attention.h", "#include <c10/util/BFloat16.h>\n", "torch may be"),
    "highway": ("src/plan/a.cc", '#include "hwy/highway.h"\n', "Highway may be"),
    "cuda": ("include/nearfield/plan.h", "#include <cuda_runtime.h>\n", "CUDA may be"),
    "asm": ("src/cpu/a.cc", 'void f() { __asm__ volatile("nop"); }\n', "asm only"),
    "empty asm elsewhere": ("src/plan/a.cc", 'void f() { asm volatile("" ::: "memory"); }\n', "asm only"),
    "getenv": ("src/cpu/a.cc", '\n\nauto e = ::getenv("X");\n', "src/cpu/a.cc:3: getenv only"),
    "after a raw string": ("src/plan/a.cc", 'auto s = R"x(" // )x"; auto e = getenv("X");\n', "getenv only"),
    "ops upwards": ("python/nearfield/_ops.py", "from . import functional\n", "not below"),
    "core to ops": ("python/nearfield/_core.py", "from nearfield import _ops\n", "not below"),
    "functional upwards": ("python/nearfield/functional.py", "from .modules import Attention\n", "not below"),
    "front from inside": ("python/nearfield/_core.py", "import nearfield\n", "not below"),
    "lazily": (
        "python/nearfield/functional.py",
        "def f():\n    import nearfield.compat\n",
        ":2: functional imports",
    ),
    "modules to compat": (
        "python/nearfield/modules.py",
        "from nearfield.compat import natten\n",
        "not below",
    ),
    "tools to modules": ("python/nearfield/tools/a.py", "from .. import modules\n", "not below"),
    "tools to ops": (
        "python/nearfield/tools/a.py",
        "from .._ops import forward\n",
        "uses functional and _core",
    ),
    "distributed to tools": ("python/nearfield/distributed/a.py", "from ..tools import cli\n", "not below"),
    "ctypes": ("python/nearfield/functional.py", "import ctypes.util\n", "ctypes only"),
    "torch.ops": (
        "python/nearfield/functional.py",
        "import torch\nf = torch.ops.nearfield\n",
        ":2: torch.ops only",
    ),
    "from torch": ("python/nearfield/modules.py", "from torch import ops\n", "torch.ops only"),
}


@pytest.mark.parametrize("name", GOOD)
def test_good(tmp_path, name):
    assert violations(tmp_path, *GOOD[name]) == []


@pytest.mark.parametrize("name", BAD)
def test_bad(tmp_path, name):
    path, text, message = BAD[name]
    found = violations(tmp_path, path, text)
    assert len(found) == 1, found
    assert found[0].startswith(f"{path}:")
    assert message in found[0]


def test_this_repository():
    files, lines = layers.check(ROOT)
    assert lines == []
    assert files > 10


def test_exit_status(tmp_path, capsys):
    assert violations(tmp_path, "src/plan/a.cc", "") == []
    assert layers.main([str(tmp_path)]) == 0
    violations(tmp_path, "src/plan/a.cc", "#include <hwy/base.h>\n")
    assert layers.main([str(tmp_path)]) == 1
    assert "src/plan/a.cc:1: Highway" in capsys.readouterr().out
