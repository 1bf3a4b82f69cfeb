# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Our module trees under the names of other packages, for the import system and for package metadata.

One finder on `sys.meta_path` per installed peer answers `import`, `importlib.util.find_spec`, and through
`importlib.metadata` `version`, `distribution` and `packages_distributions`. A name of the peer leads to the
same module object as ours: there is one `na2d`, whatever it was imported as.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import sys
from typing import NamedTuple


class _Peer(NamedTuple):
    target: str  # our module
    roots: tuple[str, ...]  # its names
    distributions: tuple[str, ...]  # as package managers call them, one per root


_PEERS = {
    "natten": _Peer("nearfield.compat.natten", ("natten",), ("natten",)),
    "imaginaire": _Peer(
        "nearfield.compat.imaginaire",
        ("cosmos_transfer2._src.imaginaire.attention", "cosmos_predict2._src.imaginaire.attention"),
        ("cosmos-transfer2", "cosmos-predict2"),
    ),
    "nvsubquadratic": _Peer(
        "nearfield.compat.nvsubquadratic", ("nvsubquadratic.modules.attention",), ("nvsubquadratic",)
    ),
}
_installed: dict[str, _Finder] = {}


def install(name: str, force: bool = False) -> None:
    """Makes `import` of a peer find nearfield's drop-in, in this process, from now on.

    Call it before anything imports the peer, or asks whether it is there: what has asked before keeps the
    answer (transformers asks when it is imported). Calling it again changes nothing.

    Args:
        name: `"natten"`; `"imaginaire"`: `cosmos_transfer2._src.imaginaire.attention` and the same under
            `cosmos_predict2`; `"nvsubquadratic"`: `nvsubquadratic.modules.attention`.
        force: shadow the peer although it is installed or imported. Its other modules stay its own; names
            that were imported from it before keep their meaning.

    Raises:
        ValueError: no such peer. RuntimeError: the peer itself is there, and force is False.
    """
    peer = _peer("install", name)
    if not isinstance(force, bool):
        raise TypeError(f"[compat.install] got force of type {type(force).__name__}, expected bool")
    if name in _installed:
        return
    for root, distribution in zip(peer.roots, peer.distributions, strict=True):
        found = _where(root.partition(".")[0], distribution)
        if found and not force:
            raise RuntimeError(
                f"[compat.install] got {name!r} while {found}, expected it to be absent; pass force=True to "
                "shadow it in this process, or import from nearfield.compat instead"
            )
    importlib.import_module(peer.target)
    finder = _Finder(peer)
    sys.meta_path.insert(0, finder)
    importlib.invalidate_caches()
    for root in peer.roots:
        finder.take_over(root)
    _installed[name] = finder


def uninstall(name: str) -> None:
    """Takes back `install(name)`, if there was one: the modules that it displaced return."""
    _peer("uninstall", name)
    finder = _installed.pop(name, None)
    if finder is not None:
        sys.meta_path.remove(finder)
        importlib.invalidate_caches()
        finder.give_back()


def _peer(function: str, name) -> _Peer:
    if not isinstance(name, str) or name not in _PEERS:
        raise ValueError(f"[compat.{function}] got {name!r}, expected one of {', '.join(_PEERS)}")
    return _PEERS[name]


def _where(package: str, distribution: str) -> str | None:
    """Where the peer itself is, in words; None if it is not."""
    if package in sys.modules:
        return f"the module {package} has been imported"
    if importlib.util.find_spec(package) is not None:
        return f"the package {package} can be imported"
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    return f"the distribution {distribution} is installed"


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, peer: _Peer):
        self.peer = peer
        self.displaced: dict[str, object] = {}  # modules of the peer, by name
        self.attributes: list[tuple] = []  # (parent module, name, what was there)
        version = importlib.import_module(peer.target).__dict__.get("__version__")
        if version is None:
            version = importlib.import_module(__name__.partition(".")[0]).__version__
        self.metadata = [
            _Metadata(distribution, version, root.partition(".")[0])
            for root, distribution in zip(peer.roots, peer.distributions, strict=True)
        ]
        # Packages above a root are the peer's own where it has them, else empty ones.
        self.parents = [p for root in peer.roots for p in _parents(root) if not _exists(p)]

    def find_spec(self, fullname, path=None, target=None):
        for root in self.peer.roots:
            if fullname == root or fullname.startswith(root + "."):
                ours = self.peer.target + fullname[len(root) :]
                spec = importlib.util.find_spec(ours)
                if spec is None:
                    return None
                package = spec.submodule_search_locations is not None
                return importlib.machinery.ModuleSpec(
                    fullname, _Alias(ours), origin=spec.origin, is_package=package
                )
        if fullname in self.parents:
            return importlib.machinery.ModuleSpec(fullname, _Empty(), is_package=True)
        return None

    def find_distributions(self, context=None):
        name = None if context is None else context.name
        normal = None if name is None else _normal(name)
        return [m for m in self.metadata if normal is None or _normal(m.metadata["Name"]) == normal]

    def take_over(self, root: str) -> None:
        for name in [n for n in sys.modules if n == root or n.startswith(root + ".")]:
            self.displaced[name] = sys.modules.pop(name)
        parent, _, child = root.rpartition(".")
        if parent in sys.modules:
            self.attributes.append((sys.modules[parent], child, vars(sys.modules[parent]).get(child)))
        importlib.import_module(root)

    def give_back(self) -> None:
        for name in list(sys.modules):
            below = any(name == root or name.startswith(root + ".") for root in self.peer.roots)
            if below or name in self.parents:
                del sys.modules[name]
        sys.modules.update(self.displaced)
        for parent, child, before in self.attributes:
            if before is None:
                vars(parent).pop(child, None)
            else:
                setattr(parent, child, before)


def _parents(root: str) -> list[str]:
    parts = root.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _exists(package: str) -> bool:
    if package in sys.modules:
        return True
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # a package above is missing
        return False


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


class _Alias(importlib.abc.Loader):
    """Loads one of our modules under another name; it stays the module that it is."""

    def __init__(self, ours: str):
        self.ours = ours

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        sys.modules[module.__name__] = importlib.import_module(self.ours)


class _Empty(importlib.abc.Loader):
    def create_module(self, spec):
        return None

    def exec_module(self, module):
        pass


class _Metadata(importlib.metadata.Distribution):
    """What `pip` would have written."""

    def __init__(self, name: str, version: str, package: str):
        self._files = {
            "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            "Summary: nearfield's drop-in, put there by nearfield.compat.install\n",
            "top_level.txt": package + "\n",
        }

    def read_text(self, filename):
        return self._files.get(str(filename))

    def locate_file(self, path):
        raise FileNotFoundError(f"{path}: a drop-in of nearfield.compat has no files of its own")
