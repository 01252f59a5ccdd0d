"""How a stage is run: its command line, its lock, its errors, its processes."""

import hashlib
import inspect
import os
import re
import sys
import time
import traceback
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from urllib.parse import quote, unquote

from rissole.harness import checkpoints, launch, lock, signals
from rissole.harness.errors import InputError

STARTED = time.perf_counter()  # of this process, nearly
LONGEST = 150  # characters of what was called that the name of a file holds


def run(main: Callable[..., None], shared: bool = False) -> None:
    """Call a stage's `main` with what the command line says.

    All of params.yaml is checked before. An InputError becomes one line and exit status 1, ctrl-C
    and `kill` one and 130. Of several processes only the first speaks. No two processes can be at
    the same words at once. How long they took is left in checkpoints/seconds/.

    Args:
        main: of the stage.
        shared: whether several processes can share the work (`launch`).
    """
    parser = command_line(main)
    words = vars(parser.parse_args())
    signals.listen()
    try:
        launch.check(shared)
        if shared:
            launch.start_wanted()
        called = slug(parser.prog, (str(value) for value in words.values() if value))
        first = launch.first()
        if first and os.access(".", os.W_OK):
            lock.hold(Path("checkpoints", "running", f"{called}.lock"), f"`{unquote(called)}`")
        # By its name: what checks the settings of all packages stands above them, and this below.
        import_module("rissole.params").read()
        with (
            Path(os.devnull).open("w") as nothing,
            redirect_stdout(sys.stdout if first else nothing),
        ):
            main(**words)
            _say_what_follows(parser.prog, [word for word in words.values() if word])
        if first:
            _note_seconds(called)
    except InputError as error:
        _fail(f"{parser.prog}: {error}")
    except KeyboardInterrupt as interrupt:
        _stop(parser.prog, f"; {interrupt}" if str(interrupt) else "")
    except Exception:
        if signals.asked_together():
            _stop(parser.prog)  # another process has gone
        if launch.count() > 1:
            _fail(traceback.format_exc().rstrip())
        raise


def command_line(main: Callable[..., None]) -> ArgumentParser:
    """What a `main` takes: a word for each parameter, an option for each with a default.

    The description is its script's docstring, what is said of a word stands in that of `main`. A
    parameter whose default is False becomes a flag.
    """
    parser = ArgumentParser(
        Path(inspect.getfile(main)).name,
        description=inspect.getmodule(main).__doc__,
        formatter_class=RawDescriptionHelpFormatter,
    )
    about = dict(re.findall(r"^ +(\w+): (.+)\.$", inspect.getdoc(main) or "", re.MULTILINE))
    for name, parameter in inspect.signature(main).parameters.items():
        if parameter.default is parameter.empty:
            parser.add_argument(name, help=about.get(name))
        elif parameter.default is False:
            parser.add_argument(f"--{name}", help=about.get(name), action="store_true")
        else:
            parser.add_argument(f"--{name}", help=about.get(name), default=parameter.default)
    return parser


def address(stage: str, row: str = "") -> str:
    """A stage as DVC is told it.

    Args:
        stage: its name.
        row: of the table or the like, of the ablations with `ablations/` before it; or none.
    """
    family, _, name = row.partition("/") if "/" in row else ("", "", row)
    folder = f"stages/{family}/dvc.yaml:" if family else ""
    return folder + stage + (f"@{name.partition('/')[0]}" if name else "")


def slug(script: str, words: Iterable[str]) -> str:
    """What was called, as a file can be named; what is too long for that ends in a digest."""
    called = " ".join([script, *words])
    name = quote(called, safe=" ")
    digest = hashlib.sha256(called.encode()).hexdigest()[:16]
    return name if len(name) <= LONGEST else f"{name[:LONGEST]} {digest}"


def _fail(why: str) -> None:
    """End with a reason, and at once where others wait: what ends NCCL in order waits for them."""
    if launch.count() == 1:
        sys.exit(why)
    print(why, file=sys.stderr, flush=True)
    os._exit(1)


def _stop(script: str, kept: str = "") -> None:
    """End at once, as threads and other processes may not be done yet."""
    if launch.first():
        print(f"{script}: stopped{kept}; the same command goes on", file=sys.stderr)
    os._exit(130)


def _say_what_follows(script: str, words: list[str]) -> None:
    """Where a stage of the pipeline was called by hand, and not for a part of the work."""
    stage, pipeline = script.removesuffix(".py"), Path("dvc.yaml")
    if "DVC_STAGE" in os.environ or words != sys.argv[1:] or not pipeline.exists():
        return
    if f"\n  {stage}:\n" in pipeline.read_text("utf-8"):
        named = address(stage, "".join(words))
        print(f"next: `dvc commit {named}` has DVC take this as it is; `dvc repro` goes on from it")


def _note_seconds(called: str) -> None:
    """Leave how long it took to who looks back, such as the report; no work is lost over that."""
    with suppress(OSError):
        path = checkpoints.folder("seconds") / f"{called}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{{"seconds": {time.perf_counter() - STARTED:.3f}}}\n')
