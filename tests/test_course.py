"""A training's course: where it ends, what is kept of it, what can be looked at meanwhile."""

import math

from rissole.ground import checkpoints, course
from rissole.ground.errors import InputError

import pytest
import torch


class Counter:
    """A learner that only counts."""

    step = 0

    def state(self):
        return {"x": torch.tensor([self.step])}, {"step": self.step}

    def load(self, tensors, numbers):
        self.step = numbers["step"]

    def count(self):
        while self.step < 300:
            self.step += 1
            yield self.step


def test_a_loss_far_above_that_of_the_first_steps_ends_the_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    states = checkpoints.Checkpoints("train_ldm/row", "0" * 64, 300)
    learner = Counter()
    way = course.Course(learner, states, ["loss"], 300, tmp_path / "loss.csv", "lower it")
    with pytest.raises(InputError, match="lower it: .* its loss is 1e.03 at step 200"):
        for _ in way.follow({"loss": 1000.0 if step > 100 else 1.0} for step in learner.count()):
            pass
    states.remove()


@pytest.mark.parametrize("broken_at", [1, 99, 100, 101, 250, 300])
def test_no_state_after_a_broken_loss_is_kept(broken_at, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    learner = Counter()
    monkeypatch.setattr(checkpoints.Checkpoints, "due", lambda self: learner.step % 7 == 0)
    states = checkpoints.Checkpoints("train_ldm/row", "0" * 64, 1)
    way = course.Course(learner, states, ["loss"], 300, tmp_path / "loss.csv", "lower it")
    with pytest.raises(InputError, match=f"lower it: .* nan at step {broken_at} of 300"):
        for _ in way.follow(
            {"loss": math.nan if step >= broken_at else 1.0} for step in learner.count()
        ):
            pass
    assert learner.step < broken_at + course.CHECKED
    kept = [int(path.stem) for path in tmp_path.rglob("*.safetensors")]
    states.remove()
    assert all(step < broken_at for step in kept)


def read(path):
    return [line.split(",") for line in path.read_text().splitlines()[1:]]


def test_the_curves_can_be_looked_at_while_it_trains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(course, "SHOWN", 0)
    learner, curves = Counter(), tmp_path / "loss.csv"
    states = checkpoints.Checkpoints("train_ldm/row", "0" * 64, 300)
    way = course.Course(learner, states, ["loss"], 300, curves, "lower it")
    seen = {}
    for _ in way.follow({"loss": float(step)} for step in learner.count()):
        if learner.step % 100 == 50:
            seen[learner.step] = len(read(curves)) if curves.exists() else 0
    assert seen == {50: 0, 150: 100, 250: 200}
    assert [float(loss) for _, loss in read(curves)] == [i + 0.5 for i in range(1, 300, 2)]
    states.remove()


def test_a_training_that_was_stopped_after_its_last_step_has_its_curves_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    learner, curves = Counter(), tmp_path / "loss.csv"
    monkeypatch.setattr(checkpoints.Checkpoints, "due", lambda self: learner.step == 300)
    states = checkpoints.Checkpoints("train_ldm/row", "0" * 64, 1)
    way = course.Course(learner, states, ["loss"], 300, curves, "lower it")
    steps = way.follow({"loss": 1.0} for _ in learner.count())
    for _ in range(300):
        next(steps)  # and not to the end
    assert not curves.exists()
    again = course.Course(Counter(), states, ["loss"], 300, curves, "lower it")
    assert list(again.follow([])) == []
    assert len(read(curves)) == 150
    states.remove()
