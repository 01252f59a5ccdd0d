"""Print what ImageNet-1k, and databases of 1e8 and 1e9 images, would take on machines like this.

Not a stage: `python stages/plan_scale.py`. Takes the sizes of preset imagenet100 from params.yaml
and the rates of metrics/speed.json (`python stages/measure_speed.py`).

    python stages/plan_scale.py
"""

from pathlib import Path

from rissole.ground import config, files, runtime
from rissole.ground.derived import Extent
from rissole.ground.errors import InputError
from rissole.speed.plan import plan

SPEED = Path("metrics/speed.json")
IMAGES = {"ImageNet-1k": 1_281_167, "1e8 images": 10**8, "1e9 images": 10**9}


def main() -> None:
    """Print the table."""
    speed = files.read_json(SPEED)
    if speed["extent"] != "full":
        raise InputError(
            f"{SPEED}: was measured with --quick; run `python stages/measure_speed.py`"
        )
    settings = config.read().fitted(Extent(8000, 64)).under("imagenet100")
    plans = {name: plan(images, settings, speed) for name, images in IMAGES.items()}
    print(f"| | {' | '.join(plans)} |")
    print(f"|:--|{'--:|' * len(plans)}")
    for name in next(iter(plans.values())):
        print(f"| {name} | {' | '.join(shown(of[name]) for of in plans.values())} |")


def shown(number: float) -> str:
    """A number to two digits, with commas."""
    digits = 1 - len(f"{int(number)}") + (number >= 1)
    return f"{round(number, digits):,.0f}" if number >= 10 else f"{number:.2g}"


if __name__ == "__main__":
    runtime.run(main)
