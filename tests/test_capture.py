"""Copying of files into a recording's inputs."""

import torch

from utils.capture import StaticInputs


def test_an_input_is_copied_again_only_if_it_changed():
    target = torch.zeros(2)
    inputs, first = StaticInputs([target]), torch.tensor([1.0, 2.0])
    inputs.fill([first])
    assert target.tolist() == [1, 2]
    target.zero_()  # shows whether it is copied
    inputs.fill([first])
    assert target.tolist() == [0, 0]
    first += 1
    inputs.fill([first])
    assert target.tolist() == [2, 3]
    inputs.fill([torch.tensor([5.0, 6.0])])
    assert target.tolist() == [5, 6]
    inputs.fill([first])
    assert target.tolist() == [2, 3]


def test_another_tensor_at_the_same_place_is_copied():
    target = torch.zeros(1)
    inputs = StaticInputs([target])
    for value in range(5):
        source = torch.tensor([float(value)])
        inputs.fill([source])
        assert target.item() == value
        del source


def test_inference_tensors_have_no_version_and_are_copied_always():
    with torch.inference_mode():
        source = torch.tensor([1.0])
        target = torch.zeros(1)
        inputs = StaticInputs([target])
        inputs.fill([source])
        source += 1
        inputs.fill([source])
        assert target.item() == 2
