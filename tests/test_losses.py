"""What training minimises is what the papers and torch say."""

import pytest
import samples
import torch
import torch.nn.functional as F

from compressor.arch import Task, TaskKind
from compressor.losses import imitation, over_heads, standardised, task_loss

CLASSES, LABELS = Task(TaskKind.MULTICLASS, 5), Task(TaskKind.MULTILABEL, 5)
NUMBERS = Task(TaskKind.REGRESSION, 2, mean=(10.0, 0.0), scale=(2.0, 4.0))


def test_early_heads_weigh_half_as_much_as_the_final_one_together():
    outputs = tuple(torch.full((1, 1), value) for value in (2.0, 4.0, 10.0))
    assert over_heads(outputs, torch.mean).item() == 10 + 0.5 * (2 + 4) / 2
    assert over_heads(outputs[-1:], torch.mean).item() == 10


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_classes_have_cross_entropy(smoothing):
    out, targets = samples.normal(8, 5), torch.arange(8) % 5
    soft = F.one_hot(targets, 5) * (1 - smoothing) + smoothing / 5
    want = -(soft * out.log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(task_loss(CLASSES, smoothing)((out,), out, targets), want)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_labels_have_a_binary_cross_entropy_each(smoothing):
    out, targets = samples.normal(8, 5), (samples.normal(8, 5, seed=1) > 0).float()
    soft, p = targets * (1 - smoothing) + smoothing / 2, torch.sigmoid(out)
    want = -(soft * p.log() + (1 - soft) * (1 - p).log()).mean()
    torch.testing.assert_close(task_loss(LABELS, smoothing)((out,), out, targets), want)


def test_numbers_have_a_squared_error_in_units_of_their_spread():
    out, targets = samples.normal(8, 2), 10 + 3 * samples.normal(8, 2, seed=1)
    want = ((out - (targets - torch.tensor([10.0, 0])) / torch.tensor([2.0, 4])) ** 2).mean()
    torch.testing.assert_close(task_loss(NUMBERS, 0.0)((out,), out, targets), want)
    assert standardised(torch.tensor([[12.0, 4.0]]), NUMBERS).tolist() == [[1, 1]]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_imitation_is_hintons_divergence_times_the_squared_temperature(temperature):
    student, teacher = samples.normal(8, 5), samples.normal(8, 5, seed=1)
    p, q = (teacher / temperature).softmax(dim=1), (student / temperature).softmax(dim=1)
    want = (p * (p / q).log()).sum(dim=1).mean() * temperature**2
    torch.testing.assert_close(imitation(student, teacher, CLASSES, temperature), want)


def test_imitation_of_labels_is_the_divergence_of_each():
    student, teacher, temperature = samples.normal(8, 5), samples.normal(8, 5, seed=1), 3.0
    p, q = torch.sigmoid(teacher / temperature), torch.sigmoid(student / temperature)
    want = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean() * temperature**2
    torch.testing.assert_close(imitation(student, teacher, LABELS, temperature), want)


def test_imitation_of_numbers_is_the_squared_distance():
    student, teacher = samples.normal(8, 2), samples.normal(8, 2, seed=1)
    torch.testing.assert_close(imitation(student, teacher, NUMBERS, 4.0), ((student - teacher) ** 2).mean())


@pytest.mark.parametrize("task", [CLASSES, LABELS, NUMBERS], ids=lambda task: str(task.kind))
def test_a_student_that_answers_as_its_teacher_has_nothing_to_learn(task):
    out = samples.normal(8, task.outputs).requires_grad_()
    loss = imitation(out, out.detach(), task, 4.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert out.grad is not None
    torch.testing.assert_close(out.grad, torch.zeros_like(out), atol=1e-6, rtol=0)


def test_the_gradient_of_imitation_keeps_its_size_at_any_high_temperature():
    sizes = []
    for temperature in (10.0, 20.0, 40.0):
        student = samples.normal(64, 5).requires_grad_()
        imitation(student, samples.normal(64, 5, seed=1), CLASSES, temperature).backward()
        assert student.grad is not None
        sizes.append(student.grad.norm().item())
    assert max(sizes) < 1.1 * min(sizes)
