"""A training run: where it ends, what is kept of it, what can be looked at meanwhile."""

import math

from rissole.core import training_run
from rissole.core.training_run import TrainingRun
from rissole.harness.checkpoints import Checkpoints
from rissole.harness.errors import InputError

import pytest
import torch


class Counter:
    """A learner that only counts."""

    step = 0

    def state(self):
        return {"x": torch.tensor([self.step])}, {"step": self.step}

    def load(self, tensors, numbers):
        self.step = numbers["step"]


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """A run of 300 steps, as one begins it in an empty folder, or goes on with it."""
    monkeypatch.chdir(tmp_path)
    kept = Checkpoints("train_ldm/row", "0" * 64, 300, first=True, alone=True)

    def begin(learner):
        return TrainingRun(learner, kept, ["loss"], 300, tmp_path / "loss.csv", "lower it")

    return begin


def train(run, learner, loss, until=300):
    while learner.step < until:
        learner.step += 1
        run.note({"loss": loss(learner.step)})


def read(path):
    return [line.split(",") for line in path.read_text().splitlines()[1:]]


def test_a_loss_far_above_that_of_the_first_steps_ends_the_training(begin):
    run = begin(learner := Counter())
    with pytest.raises(InputError, match="lower it: .* its loss is 1e.03 at step 200"):
        train(run, learner, lambda step: 1000.0 if step > 100 else 1.0)


@pytest.mark.parametrize("broken_at", [1, 100, 101, 250, 300])
def test_no_checkpoint_after_a_broken_loss_is_kept(broken_at, begin, tmp_path, monkeypatch):
    run = begin(learner := Counter())
    monkeypatch.setattr(Checkpoints, "due", lambda self: learner.step % 7 == 0)
    with pytest.raises(InputError, match=f"lower it: .* nan at step {broken_at} of 300"):
        train(run, learner, lambda step: math.nan if step >= broken_at else 1.0)
    assert learner.step < broken_at + training_run.CHECKED
    assert all(int(path.stem) < broken_at for path in tmp_path.rglob("*.safetensors"))


def test_the_curves_can_be_looked_at_while_it_trains(begin, tmp_path, monkeypatch):
    monkeypatch.setattr(training_run, "SHOWN", 0)
    run, curves = begin(learner := Counter()), tmp_path / "loss.csv"
    for until, written in ((50, 0), (150, 100), (250, 200)):
        train(run, learner, float, until)
        assert (len(read(curves)) if curves.exists() else 0) == written
    train(run, learner, float)
    run.end()
    assert [float(loss) for _, loss in read(curves)] == [i + 0.5 for i in range(1, 300, 2)]


def test_a_run_goes_on_from_its_newest_readable_checkpoint(begin, tmp_path, monkeypatch):
    run = begin(learner := Counter())
    monkeypatch.setattr(Checkpoints, "due", lambda self: learner.step in (100, 200))
    train(run, learner, float, 250)
    newest = max(tmp_path.rglob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-1])
    begin(again := Counter())
    assert again.step == 100
    assert not newest.exists()


def test_a_training_that_was_stopped_after_its_last_step_has_its_curves_too(
    begin, tmp_path, monkeypatch
):
    run = begin(learner := Counter())
    monkeypatch.setattr(Checkpoints, "due", lambda self: learner.step == 300)
    train(run, learner, lambda step: 1.0)
    curves = tmp_path / "loss.csv"
    assert not curves.exists()
    begin(Counter()).end()
    assert len(read(curves)) == 150
