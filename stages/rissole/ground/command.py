"""The command line of a stage, read from its source, so that `--help` need not wait for torch."""

import ast
import re
import sys
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

STARTED = time.perf_counter()  # of this process, nearly: nothing else of ours is imported earlier


def parser(script: Path) -> ArgumentParser:
    """What a script's `main` takes: a word for each parameter, an option for each with a default.

    The description is the script's docstring, what is said of a word stands in that of `main`. A
    parameter whose default is False becomes a flag.
    """
    tree = ast.parse(script.read_text("utf-8"))
    (main,) = (
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"
    )
    parser = ArgumentParser(
        script.name,
        description=ast.get_docstring(tree),
        formatter_class=RawDescriptionHelpFormatter,
    )
    about = dict(re.findall(r"^ +(\w+): (.+)\.$", ast.get_docstring(main) or "", re.MULTILINE))
    words = main.args.args[: len(main.args.args) - len(main.args.defaults)]
    for word in words:
        parser.add_argument(word.arg, help=about.get(word.arg))
    options = main.args.args[len(words) :]
    for option, default in zip(options, main.args.defaults, strict=True):
        flag = ast.literal_eval(default) is False
        how = {"action": "store_true"} if flag else {"default": ast.literal_eval(default)}
        parser.add_argument(f"--{option.arg}", help=about.get(option.arg), **how)
    return parser


def address(stage: str, row: str = "") -> str:
    """A stage as DVC is told it: those of the ablations stand in folders of their own.

    Args:
        stage: its name.
        row: of the table or the like, `ablations/` before it if it is one; or none.
    """
    family, _, name = row.rpartition("/")
    folder = f"stages/{family}/{stage}/dvc.yaml:" if family else ""
    return folder + stage + (f"@{name}" if name else "")


def following(script: Path, words: list[str]) -> str:
    """What to do after a stage of the pipeline was called by hand; empty for other scripts.

    Args:
        script: that was called.
        words: with which: none, or the name of a row or the like.
    """
    called = address(script.stem, "".join(words))
    pipeline = Path(called.rpartition(":")[0] or "dvc.yaml")
    if not pipeline.exists() or f"\n  {script.stem}:\n" not in pipeline.read_text("utf-8"):
        return ""
    return f"next: `dvc commit {called}` has DVC take this as it is; `dvc repro` goes on from it"


def answer_help() -> None:
    """Answer `--help` and end, where a stage is being started with it."""
    script = Path(getattr(sys.modules["__main__"], "__file__", None) or "")
    ours = script.parent.resolve() == Path(__file__).parents[2]
    if (
        ours
        and {"-h", "--help"} & {*sys.argv[1:]}
        and "runtime.run(main" in script.read_text("utf-8")
    ):
        parser(script).parse_args()
