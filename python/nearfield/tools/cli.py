# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The command `nearfield`: one subcommand per tool.

A tool is a module with add_parser(), which declares its arguments, and run(), which takes the parsed ones and
raises CommandError for whatever the user got wrong. `nearfield --help` needs none of the packages that only
one tool uses: these are imported when it runs.
"""

import argparse
import contextlib
import os
import sys

from nearfield import _core
from nearfield.tools import CommandError, explain, info, optimize, profile, show, simulate

# Packages of the extra `demo`, by the name they are imported under.
kDemoPackages = {"matplotlib", "nibabel", "numpy", "PIL", "rich", "scipy", "skimage"}

TOOLS = (profile, explain, optimize, simulate, show, info)


def main(argv=None):
    """Runs `nearfield` with the words of `argv` (the process's own by default); returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that has no ± is no reason to lose the figures
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # who reads has read enough
        _forget_output()
        return 141  # as of SIGPIPE
    except OSError as error:
        if error.filename is not None:
            raise  # a bug: files of the user are CommandErrors
        _forget_output()
        print(f"nearfield {args.command}: cannot write the output: {error.strerror}", file=sys.stderr)
        return 1
    except (CommandError, ValueError, MemoryError, RuntimeError) as error:
        text = _expected(error)
        if text is None:
            raise  # a bug
        print(f"nearfield {args.command}: {text}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"nearfield {args.command}: stopped", file=sys.stderr)
        return 130
    return 0


def _forget_output() -> None:
    """Else the interpreter would try to write it once more when it ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _expected(error) -> str | None:
    """What to say of an error that is no bug: of a CommandError, of the library's refusals, which begin with
    the operation in brackets, and of allocations that fail."""
    text = str(error)
    if isinstance(error, CommandError) or (isinstance(error, ValueError) and text.startswith("[")):
        return text
    if isinstance(error, MemoryError):
        return text or "out of memory"
    return "out of memory: torch could not allocate a tensor" if "allocate memory" in text else None


def _parser():
    parser = argparse.ArgumentParser(prog="nearfield", description="Neighborhood attention: tools.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {_core.info()['version']}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for tool in TOOLS:
        tool.add_parser(commands)
    _add_demo(commands)
    return parser


def _add_demo(commands):
    parser = commands.add_parser(
        "demo",
        help="denoise a picture and a volume by attention",
        description="Denoises photographs (na2d) and an MRI volume (na3d) by non-local means written as "
        "neighborhood attention, prints PSNR and time next to scikit-image and to dense attention, and "
        "writes pictures to look at.",
    )
    parser.add_argument("--image", metavar="FILE", help="denoise this picture instead of those of the demo")
    parser.add_argument(
        "--out", metavar="DIR", default="demo-out", help="folder for the PNGs (default: ./%(default)s)"
    )
    noise = parser.add_mutually_exclusive_group()
    noise.add_argument(
        "--sigma",
        type=_sigma,
        metavar="S",
        help="standard deviation of the Gaussian noise to add, where the brightest pixel is 1 "
        "(default: 0.1 for pictures, 0.05 for the volume)",
    )
    noise.add_argument(
        "--no-noise",
        action="store_true",
        help="with --image: denoise the picture as it is, with the noise estimated from it",
    )
    parser.add_argument(
        "--seed", type=_whole_number, default=0, metavar="N", help="of the noise (default: %(default)s)"
    )
    parser.add_argument(
        "--max-side",
        type=_whole_number,
        default=1024,
        metavar="N",
        help="shrink the --image until no side is longer than N pixels; 0 keeps it (default: %(default)s)",
    )
    parser.add_argument("--overview", metavar="FILE", help="also write one small PNG with every input")
    parser.set_defaults(run=_demo)


def _demo(args):
    if args.no_noise and not args.image:
        raise CommandError("--no-noise needs the picture that it is about: add --image FILE")
    try:
        from nearfield.tools import demo
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in kDemoPackages:
            raise
        raise CommandError(
            f"needs the package {error.name}; in the source folder: pip install '.[demo]'"
        ) from error
    demo.main(args)


def _whole_number(text):
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number, 0 or more")
    return int(text)


def _sigma(text):
    try:
        sigma = float(text)
    except ValueError:
        sigma = -1.0
    if not 0.001 <= sigma <= 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number from 0.001 to 1")
    return sigma
