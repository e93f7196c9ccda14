"""A teacher that is remembered says what it would say again, and is asked no more than it must be."""

import pytest
import samples
import torch

from compressor.model import fresh
from compressor.phases.teaching import taught
from compressor.training import Context, batches

Batches = list[tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture
def few(context) -> Batches:
    """Give five batches of digits."""
    found = [each for epoch in range(5) for each in batches(context.data.train, 8, seed=0, epoch=epoch)]
    return found[:5]


def heard(context: Context, memory: int, given: Batches) -> tuple[list[float], int]:
    """Give the losses of a student that does not learn, and how often its teacher was asked."""
    teacher, student, asked = fresh(samples.STANDARD, 0), fresh(samples.STANDARD, 1), []
    teacher.net.register_forward_hook(lambda *seen: asked.append(seen))
    loss = taught(teacher, context, temperature=4.0, weight=0.9, fit=samples.FIT, memory=memory)
    student.net.eval()
    with torch.no_grad():
        return [loss(student.net(images), images, targets).item() for images, targets in given], len(asked)


def test_a_batch_is_asked_for_once_and_told_as_if_asked_again(context, few):
    twice = few + [(images.clone(), targets) for images, targets in few]
    assert heard(context, 10, twice) == (heard(context, 0, twice)[0], 5)


def test_no_more_batches_are_remembered_than_was_said(context, few):
    said, asked = heard(context, 2, few * 2)
    assert said == heard(context, 0, few * 2)[0]
    assert asked == 8


def test_a_batch_of_which_one_pixel_differs_is_another(context, few):
    images, targets = few[0]
    other = images.clone()
    other.view(-1)[77] += 1
    both = [(images, targets), (other, targets)]
    assert heard(context, 10, both) == (heard(context, 0, both)[0], 2)
