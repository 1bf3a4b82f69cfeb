/* Copyright 2026 The nearfield authors.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Geometry, plans and checks for other languages: text and integers in, JSON out. Attention itself is
 * reached through attention.h or the PyTorch operators.
 *
 * Every function returns a new string, {"ok": ...} or {"error": "message"}, to be given back to
 * nf_free(). None throws, none keeps a pointer of the caller. */
#pragma once

#include <stdint.h>

#if defined(__cplusplus)
extern "C" {
#endif

#if defined(_WIN32)
#define NF_C_API
#else
#define NF_C_API __attribute__((visibility("default")))
#endif

NF_C_API void nf_free(char* text);

/* {"ok": {"version", "backends": [...], "cpu_target", "cpu_targets": [...]}}: the instruction sets that the
 * CPU kernels can use here, the one in use first (absent if built without them). Also "functions" and "compiler". */
NF_C_API char* nf_info(void);

/* {"ok": "zen4"}: of the machine that a backend runs on; those of one class are planned alike. Asked of a backend for
 * GPUs, this starts their driver in the process, which nf_info does not. */
NF_C_API char* nf_device_class(const char* backend);

/* The canonical form of a problem string, and its numbers:
 * {"ok": {"problem", "rank", "sequences", "pairs", "flops", "sparsity", "fields"}}; fields: what the string says, taken
 * apart, one entry of "layouts" per sequence. Where the planner predicts times on the
 * CPU, also "seconds", of the kernel that it chooses, and "kernels": [{"name", "seconds", "counts"}, ...], of each that
 * could run the problem; on one thread. */
NF_C_API char* nf_problem(const char* problem);

/* {"ok": "text"}; device 0 is the CPU, 1 is CUDA. */
NF_C_API char* nf_explain(const char* call, int device);

/* The same for programs, a list with an entry for each backend: {"backend", "device", "chosen"} and either "refusal"
 * or {"kernel", "query_tile", "key_tile" (of the first sequence), "waste", "shared_bytes", "private_bytes", "note",
 * "seconds" (predicted, one thread), "kernels": {name: seconds}}. */
NF_C_API char* nf_plan(const char* call, int device);

/* Tile pairs of a sequence under the tiles that the call names, or those of its plan on the CPU:
 * {"ok": {"query_tile", "key_tile", "skipped", "partial", "full", "computed", "waste", "groups"}}: pairs of tiles, all
 * dilation groups; pairs of tokens if every tile pair that is not skipped is computed whole, and these over the
 * visible ones. Of one dilation group "query_count", "key_count", tiles per axis, and "first_token"; if `rows`, also
 * "cover": a string per query tile (raster order) with a character per key tile, `.` skipped, `+` partial, `#` full. */
NF_C_API char* nf_tiles(const char* call, int64_t sequence, int64_t group, int rows);

/* What each sequence of a problem is called in a tuner file (src/plan/tuner.h): {"ok": ["...", ...]}. */
NF_C_API char* nf_tuner_problems(const char* problem);

/* Uses the lines of a tuner file from now on, in the whole process, in place of NEARFIELD_TUNER's: {"ok": how many
 * count here}. name: of the file, for messages. text 0: the environment's again. */
NF_C_API char* nf_tuner(const char* text, const char* name);

/* Begins to collect the problems that the process runs, or (begin 0) ends it: {"ok": ["PROBLEM", ...]}, each once. */
NF_C_API char* nf_collect(int begin);

/* The keys that query tokens see on an axis (0 is the slowest of the layout's own axes) of sequence
 * `sequence`: {"ok": {"dilation", "begin": [...], "end": [...]}}, one entry per query token present, in
 * tokens: query q sees begin, begin + dilation, ... below end. */
NF_C_API char* nf_intervals(const char* problem, int64_t sequence, int axis);

/* The keys of the global layout that a shard of queries needs, per axis: {"ok": [[begin, end], ...]}.
 * shard: 2 * rank numbers, begin and end per axis. */
NF_C_API char* nf_needed_keys(const char* problem, const int64_t* shard, int numbers);

/* The queries of a shard whose windows lie within a box of keys, per axis: {"ok": [[begin, end], ...]}; all
 * axes are empty where one is. box: 4 * rank numbers, begin and end per axis of the shard, then of the keys. */
NF_C_API char* nf_inner_queries(const char* problem, const int64_t* box, int numbers);

/* Checks a call's shapes and arguments as the operator would, without data: {"ok": "problem string"}, or
 * the operator's error. words: for query, key, value, additional keys, additional values, bias and
 * the cumulative offsets of queries and of keys each present, dtype, device, device index, rank, sizes...; then has_scale, scale and dropout (the bits of
 * doubles), function, causal type, flags; then axes, ranges and grids (request.h: CallWords), each
 * behind its length. dtype: 0 float32, 1 float64, 2 bfloat16, 3 float16, 4 int32, 5 int64,
 * 6 another; device: 0 cpu, 1 cuda,
 * 2 meta, 3 another. */
NF_C_API char* nf_check(const int64_t* words, int64_t count);

/* The rule on lengths of packed sequences (request.h, check_lengths): {"ok": n}, or the error. */
NF_C_API char* nf_check_lengths(const char* op, const char* name, const int64_t* lengths, int64_t n,
                                int64_t total, const char* packed);

/* Which weights dropout keeps: kept[i] = 1 or 0 for query[i] and key[i], raster numbers in their layouts
 * (additional key j: layout tokens + j), of one batch entry (of packed sequences, their number) and query
 * head. p: the probability to be dropped. */
NF_C_API void nf_kept(int64_t seed, double p, int64_t batch, int64_t head, const int64_t* query,
                      const int64_t* key, int64_t n, uint8_t* kept);

/* GFLOP/s of float32 multiply-adds in registers (one counts two), of `threads` threads together, with the vectors of a
 * CPU target of nf_info(); -1 if it is none of this machine. */
NF_C_API double nf_fma(const char* target, int threads, double milliseconds);

#if defined(__cplusplus)
}
#endif
