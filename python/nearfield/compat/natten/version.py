# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The version of natten whose surface this is."""

__version__ = "0.21.6"
