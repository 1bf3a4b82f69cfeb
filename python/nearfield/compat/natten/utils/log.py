# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Loggers by name: the standard ones; nothing is printed that the application has not asked for."""

from __future__ import annotations

import logging

__all__ = ["get_logger"]


def get_logger(name) -> logging.Logger:
    return logging.getLogger(name)
