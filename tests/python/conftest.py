# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What all tests share: the marker of long sweeps, a seed for every test, backends, threads.

`full` marks sweeps that take minutes. They run with NEARFIELD_TEST_FULL=1 (`make test-full`).
"""

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

FULL = os.environ.get("NEARFIELD_TEST_FULL") == "1"

# CI is reproducible; the long sweeps try something new every time.
settings.register_profile(
    "nearfield",
    deadline=None,
    derandomize=not FULL,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.load_profile("nearfield")


def pytest_configure(config):
    config.addinivalue_line("markers", "full: a long sweep, run with NEARFIELD_TEST_FULL=1")
    # pytest-xdist runs tests side by side, and test_determinism.py shows that the count changes nothing.
    torch.set_num_threads(1)


def pytest_collection_modifyitems(config, items):
    for item in items:
        if not FULL and item.get_closest_marker("full"):
            item.add_marker(pytest.mark.skip(reason="a long sweep: set NEARFIELD_TEST_FULL=1"))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(params=["reference", "cpu"])
def backend(request):
    return request.param


@pytest.fixture
def threads():
    """Sets torch's thread count; the old one comes back after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
