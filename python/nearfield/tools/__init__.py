# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Command-line tools of nearfield, and what they show off. See `nearfield --help`."""


class CommandError(Exception):
    """What the user has to be told in one sentence, without a traceback; a command ends with status 1."""
