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
    "disable_autotuner",
    "disable_flex_compile",
    "disable_flex_compile_backprop",
    "disable_fused_na",
    "disable_gemm_na",
    "disable_tf32",
    "disable_tiled_na",
    "enable_autotuner",
    "enable_fused_na",
    "enable_gemm_na",
    "enable_tf32",
    "enable_tiled_na",
    "get_memory_usage_preference",
    "is_flex_compile_allowed",
    "is_flex_compile_backprop_allowed",
    "is_fna_enabled",
    "is_fused_na_enabled",
    "is_kv_parallelism_in_fused_na_enabled",
    "is_memory_usage_default",
    "is_memory_usage_strict",
    "is_memory_usage_unrestricted",
    "set_memory_usage_preference",
    "use_autotuner",
    "use_deterministic_algorithms",
    "use_fused_na",
    "use_gemm_na",
    "use_kv_parallelism_in_fused_na",
    "use_tf32_in_gemm_na",
    "use_tiled_na",
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


# ---- Switches of the releases that still had unfused kernels (0.14 to 0.17): code of that age asks for them
# before it chooses between `na2d` and `na2d_qk`.


def use_fused_na(mode=True, kv_parallel=None, **hints):
    NattenContext.is_fused_na_enabled = bool(mode)


def enable_fused_na(*args, **hints):
    use_fused_na(True)


def disable_fused_na():
    use_fused_na(False)


def is_fna_enabled() -> bool:
    return NattenContext.is_fused_na_enabled


is_fused_na_enabled = is_fna_enabled


def use_gemm_na(*args, **hints):
    """As every switch below: accepted, without effect."""


enable_gemm_na = disable_gemm_na = use_gemm_na
use_tiled_na = enable_tiled_na = disable_tiled_na = use_gemm_na
use_tf32_in_gemm_na = enable_tf32 = disable_tf32 = use_gemm_na
use_autotuner = enable_autotuner = disable_autotuner = use_gemm_na
