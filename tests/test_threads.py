"""Threads that work on whole items, each alone."""

import threading

from rissole.core import threads

import pytest
import torch


@pytest.fixture
def two_threads():
    threads.start(2)
    yield
    threads.start(1)


def test_results_come_in_the_order_of_the_items_whichever_ends_first(two_threads):
    done = [threading.Event() for _ in range(6)]

    def work(number):
        if number % 2 == 0:
            assert done[number + 1].wait(60)
        done[number].set()
        return number

    assert list(threads.in_parallel(work, range(6))) == list(range(6))


def test_a_worker_differentiates_where_its_caller_does(two_threads):
    def work(_):
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    assert set(threads.in_parallel(work, range(2))) == {(True, False)}
    with torch.no_grad():
        assert set(threads.in_parallel(work, range(2))) == {(False, False)}
    with torch.inference_mode():
        assert set(threads.in_parallel(work, range(2))) == {(False, True)}


def test_each_thread_draws_its_masks_from_its_own_generator(two_threads):
    dropout = threads.Dropout(0.5)

    def mask(seed):
        threads.seed(seed)
        return dropout(torch.ones(1000))

    one, two = threads.in_parallel(mask, [1, 2])
    again = next(threads.in_parallel(mask, [1, 2]))
    assert torch.equal(one, again) and not torch.equal(one, two)
    assert set(one.unique().tolist()) == {0, 2}
    assert torch.equal(dropout.eval()(torch.ones(5)), torch.ones(5))
