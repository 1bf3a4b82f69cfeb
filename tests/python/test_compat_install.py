# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""nearfield.compat.install: module trees under the peers' names, and what asks whether they are there."""

import importlib
import importlib.metadata
import importlib.util
import sys
import types

import pytest

import nearfield
from nearfield.compat import install, uninstall

TARGETS = {
    "natten": {"natten": "nearfield.compat.natten"},
    "imaginaire": {
        "cosmos_transfer2._src.imaginaire.attention": "nearfield.compat.imaginaire",
        "cosmos_predict2._src.imaginaire.attention": "nearfield.compat.imaginaire",
    },
    "nvsubquadratic": {"nvsubquadratic.modules.attention": "nearfield.compat.nvsubquadratic"},
}
DISTRIBUTIONS = {
    "natten": {"natten": "natten"},
    "imaginaire": {"cosmos_transfer2": "cosmos-transfer2", "cosmos_predict2": "cosmos-predict2"},
    "nvsubquadratic": {"nvsubquadratic": "nvsubquadratic"},
}


def _names(name):
    tops = {root.partition(".")[0] for root in TARGETS[name]}
    return {n for n in sys.modules if n.partition(".")[0] in tops}


@pytest.fixture(autouse=True)
def clean():
    finders, modules = list(sys.meta_path), {name: _names(name) for name in TARGETS}
    yield
    for name in TARGETS:
        uninstall(name)
        assert _names(name) == modules[name]
    assert sys.meta_path == finders


@pytest.mark.parametrize("name", TARGETS)
def test_import(name):
    install(name)
    for root, target in TARGETS[name].items():
        assert importlib.import_module(root) is importlib.import_module(target)
        assert importlib.util.find_spec(root) is not None
        assert importlib.util.find_spec(root.partition(".")[0]) is not None


@pytest.mark.parametrize("name", TARGETS)
def test_metadata(name):
    before = importlib.metadata.packages_distributions()
    install(name)
    for package, distribution in DISTRIBUTIONS[name].items():
        assert package not in before
        assert importlib.metadata.packages_distributions()[package] == [distribution]
        assert importlib.metadata.version(distribution.replace("-", "_").upper())
        found = importlib.metadata.distribution(distribution)
        assert found.metadata["Name"] == distribution
        assert found.version == importlib.metadata.version(distribution)
        assert found.requires is None and found.files is None and len(found.entry_points) == 0
    uninstall(name)
    assert importlib.metadata.packages_distributions() == before
    for distribution in DISTRIBUTIONS[name].values():
        with pytest.raises(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version(distribution)


def test_one_module_whatever_its_name():
    install("natten")
    import natten
    import natten.functional
    import natten.utils.varlen
    from natten.token_permute import frontend
    from natten.types import KernelSchedule

    assert natten.functional is nearfield.compat.natten.functional
    assert frontend is nearfield.compat.natten.token_permute.frontend
    assert KernelSchedule is nearfield.compat.natten.types.KernelSchedule
    assert natten.__version__ == importlib.metadata.version("natten")
    assert importlib.util.find_spec("natten.profiler") is None
    with pytest.raises(ModuleNotFoundError, match=r"natten\.profiler"):
        importlib.import_module("natten.profiler")
    ours = importlib.util.find_spec("nearfield.compat.natten")
    assert ours.name == "nearfield.compat.natten"
    assert natten.__spec__.name == natten.__name__ == "nearfield.compat.natten"


def test_twice():
    install("natten")
    finders = list(sys.meta_path)
    install("natten")
    assert sys.meta_path == finders
    uninstall("natten")
    uninstall("natten")
    assert importlib.util.find_spec("natten") is None


def test_all_at_once():
    for name in TARGETS:
        install(name)
    for roots in TARGETS.values():
        for root, target in roots.items():
            assert importlib.import_module(root) is importlib.import_module(target)


def test_imported_peer_is_not_shadowed(monkeypatch):
    theirs, older = types.ModuleType("natten"), types.ModuleType("natten.older")
    monkeypatch.setitem(sys.modules, "natten", theirs)
    monkeypatch.setitem(sys.modules, "natten.older", older)
    with pytest.raises(
        RuntimeError, match=r"\[compat.install\] got 'natten' while the module natten has been"
    ):
        install("natten")
    assert sys.modules["natten"] is theirs
    install("natten", force=True)
    assert sys.modules["natten"] is nearfield.compat.natten
    assert "natten.older" not in sys.modules
    uninstall("natten")
    assert sys.modules["natten"] is theirs and sys.modules["natten.older"] is older


@pytest.fixture
def cosmos(tmp_path, monkeypatch):
    """The peer on disk, with an attention package of its own and a neighbour."""
    package = tmp_path / "cosmos_transfer2" / "_src" / "imaginaire"
    (package / "attention").mkdir(parents=True)
    for folder in (package.parent.parent, package.parent, package, package / "attention"):
        (folder / "__init__.py").write_text("")
    (package / "attention" / "__init__.py").write_text("theirs = True\n")
    (package / "other.py").write_text("value = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    uninstall("imaginaire")
    for name in [n for n in sys.modules if n.startswith("cosmos_transfer2")]:
        del sys.modules[name]


@pytest.mark.parametrize("imported", [False, True])
def test_installed_peer_keeps_its_other_modules(cosmos, imported):
    with pytest.raises(RuntimeError, match="the package cosmos_transfer2 can be imported"):
        install("imaginaire")
    if imported:
        importlib.import_module("cosmos_transfer2._src.imaginaire.attention")
    install("imaginaire", force=True)
    import cosmos_transfer2._src.imaginaire.attention as attention
    from cosmos_transfer2._src.imaginaire import attention as by_parent
    from cosmos_transfer2._src.imaginaire import other

    assert attention is by_parent is nearfield.compat.imaginaire
    assert other.value == 7
    uninstall("imaginaire")
    import cosmos_transfer2._src.imaginaire.attention as attention

    assert attention.theirs
    assert sys.modules["cosmos_transfer2._src.imaginaire"].attention is attention


def test_installed_distribution_is_not_shadowed(tmp_path, monkeypatch):
    (tmp_path / "natten-0.17.5.dist-info").mkdir()
    (tmp_path / "natten-0.17.5.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: natten\nVersion: 0.17.5\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match="the distribution natten is installed"):
        install("natten")
    install("natten", force=True)
    assert importlib.metadata.version("natten") == nearfield.compat.natten.__version__
    uninstall("natten")
    assert importlib.metadata.version("natten") == "0.17.5"


def test_bad_arguments():
    for function in (install, uninstall):
        with pytest.raises(ValueError, match=r"\[compat\.\w+\] got 'xformers', expected one of natten, imag"):
            function("xformers")
    with pytest.raises(TypeError, match="got force of type int, expected bool"):
        install("natten", force=1)
