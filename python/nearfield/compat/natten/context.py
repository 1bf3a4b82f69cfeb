# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Flags that tune kernels there. They are kept and returned, and change no result here."""

from __future__ import annotations

from enum import Enum

__all__ = [
    "MemoryUsagePreference",
    "NattenContext",
    "allow_flex_compile",
    "allow_flex_compile_backprop",
    "are_deterministic_algorithms_enabled",
    "disable_flex_compile",
    "disable_flex_compile_backprop",
    "get_memory_usage_preference",
    "is_flex_compile_allowed",
    "is_flex_compile_backprop_allowed",
    "is_kv_parallelism_in_fused_na_enabled",
    "is_memory_usage_default",
    "is_memory_usage_strict",
    "is_memory_usage_unrestricted",
    "set_memory_usage_preference",
    "use_deterministic_algorithms",
    "use_kv_parallelism_in_fused_na",
]


class MemoryUsagePreference(Enum):
    Default = 0
    Strict = 1
    Unrestricted = 2


class NattenContext:
    """The flags of this process."""

    is_deterministic_mode_enabled = False
    is_kv_parallelism_enabled = True
    is_fused_na_enabled = True
    training_memory_preference = MemoryUsagePreference.Default
    flex_compile_allowed = False
    flex_compile_backprop_allowed = False

    @staticmethod
    def reset():
        NattenContext.is_deterministic_mode_enabled = False
        NattenContext.is_kv_parallelism_enabled = True
        NattenContext.is_fused_na_enabled = True
        NattenContext.training_memory_preference = MemoryUsagePreference.Default
        NattenContext.flex_compile_allowed = False
        NattenContext.flex_compile_backprop_allowed = False


_PREFERENCES = {
    "default": MemoryUsagePreference.Default,
    "strict": MemoryUsagePreference.Strict,
    "unrestricted": MemoryUsagePreference.Unrestricted,
}


def set_memory_usage_preference(pref="default"):
    if pref not in _PREFERENCES:
        raise ValueError(
            f"[set_memory_usage_preference] got {pref!r}, expected one of {', '.join(_PREFERENCES)}"
        )
    NattenContext.training_memory_preference = _PREFERENCES[pref]


def get_memory_usage_preference() -> MemoryUsagePreference:
    return NattenContext.training_memory_preference


def is_memory_usage_default() -> bool:
    return get_memory_usage_preference() == MemoryUsagePreference.Default


def is_memory_usage_strict() -> bool:
    return get_memory_usage_preference() == MemoryUsagePreference.Strict


def is_memory_usage_unrestricted() -> bool:
    return get_memory_usage_preference() == MemoryUsagePreference.Unrestricted


def use_deterministic_algorithms(mode=True):
    """Results are deterministic anyway."""
    NattenContext.is_deterministic_mode_enabled = bool(mode)


def are_deterministic_algorithms_enabled() -> bool:
    return NattenContext.is_deterministic_mode_enabled


def use_kv_parallelism_in_fused_na(mode=True):
    if mode and are_deterministic_algorithms_enabled():
        raise RuntimeError(
            "[use_kv_parallelism_in_fused_na] got True in deterministic mode, expected one of the two; "
            "call use_deterministic_algorithms(False) first"
        )
    NattenContext.is_kv_parallelism_enabled = bool(mode)


def is_kv_parallelism_in_fused_na_enabled() -> bool:
    return NattenContext.is_kv_parallelism_enabled


def allow_flex_compile(mode=True, backprop=False):
    NattenContext.flex_compile_allowed = bool(mode)
    NattenContext.flex_compile_backprop_allowed = bool(mode and backprop)


def allow_flex_compile_backprop(mode=True):
    allow_flex_compile(is_flex_compile_allowed(), mode)


def disable_flex_compile():
    allow_flex_compile(False)


def disable_flex_compile_backprop():
    allow_flex_compile(is_flex_compile_allowed(), False)


def is_flex_compile_allowed() -> bool:
    return NattenContext.flex_compile_allowed


def is_flex_compile_backprop_allowed() -> bool:
    return NattenContext.flex_compile_backprop_allowed


# The older switches live in a file of their own, and under this name too.
def __getattr__(name):
    from . import _switches

    if name in _switches.__all__:
        return getattr(_switches, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
