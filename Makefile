# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
#
# `make help` lists the targets. Everything a target needs is set up by itself: see tools/setup.sh.

# Where Python packages go. An existing environment is used as it is, torch included:
#   make test VENV=~/envs/mine
VENV ?= .venv
# What is installed where there is no torch yet. Another build of it: make demo TORCH="torch==2.11.0"
TORCH ?= torch==2.13.0
PYTHON ?= python3
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
# Where the demo and the example write their pictures.
OUT ?= build/demo
# Arguments of the bench: make bench ARGS="--quick --only c,d"
ARGS ?=

override VENV := $(abspath $(VENV))
export VENV TORCH PYTHON JOBS OUT
export PATH := $(VENV)/bin:$(PATH)
# Builds in different folders share compiled files: paths are hashed relative to here, and Python, which
# runs one of the builds, does not change the locale of the compiler.
export CCACHE_BASEDIR := $(CURDIR)
export CCACHE_NOHASHDIR := 1
export LC_ALL := C.UTF-8
export CMAKE_BUILD_PARALLEL_LEVEL := $(JOBS)

.DEFAULT_GOAL := help
.PHONY: help demo example bench docs test test-full cuda-check setup format lint clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\): *## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

demo:  ## denoise a photograph and a brain scan; pictures in build/demo
	@tools/demo.sh

example:  ## train a neighborhood transformer on digits beside a convolutional net; picture in build/demo
	@tools/example.sh

bench:  ## times every problem of bench/problems beside what else could compute it (bench/README.md)
	@tools/bench.sh $(ARGS)

docs:  ## the site, with the explorer, in build/site (index.html opens in a browser)
	@tools/setup.sh system docs && tools/setup.sh venv && tools/docs.sh

test:  ## all tests: layers, layout, C++, Python, sanitizers, installation, the site
	@tools/test.sh

test-full:  ## the same with long sweeps, ThreadSanitizer, every SIMD target, a browser, a clean wheel install
	@tools/test.sh --full

cuda-check:  ## what can be known of the CUDA kernels without a GPU: compiled within budget, emulated and right
	@tools/cuda_check.sh

setup:  ## only the set-up of the other targets: packages, $(VENV), nearfield installed into it
	@tools/setup.sh system && tools/setup.sh venv && tools/setup.sh wheel

format:  ## lay out every source file (ruff, clang-format-14)
	@tools/format.sh

lint:  ## check layers and layout
	@python3 tools/check_layers.py && tools/format.sh check python && tools/format.sh check cpp

clean:  ## remove what was built (the virtual environment stays)
	rm -rf build
