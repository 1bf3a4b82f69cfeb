# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Drop-ins for other attention packages: change an import, or put ours under the other package's name.

from nearfield.compat.natten import na2d                      # one import changed
nearfield.compat.install("natten")                            # none changed: call it before they run
"""

from ._install import install, uninstall

__all__ = ["install", "uninstall"]
