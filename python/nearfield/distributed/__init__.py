# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
from .plan import ShardPlan

__all__ = ["ShardPlan"]
