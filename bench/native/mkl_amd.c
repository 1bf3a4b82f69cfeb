/* Copyright 2026 The nearfield authors.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Preloaded into a process, lets MKL use AVX-512 on AMD processors that have it: MKL asks this function,
 * which PyTorch's libraries export and the dynamic linker therefore finds here first, whether the
 * processor is Intel's. For the bench only: its peers shall have their best. */
int mkl_serv_intel_cpu_true(void) { return 1; }
