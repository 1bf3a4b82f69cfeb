# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Whether the kernels are there: always, they are nearfield's."""

HAS_LIBNATTEN = True
