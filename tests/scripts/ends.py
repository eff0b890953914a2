"""A process among several that ends well, and says so if no thread of its own is left that Python's end would
interrupt."""

import threading

import torch

from train.processes import Processes

processes = Processes()
with processes.together(torch.device("cpu")):
    processes.average(torch.ones(3))
assert threading.enumerate() == [threading.main_thread()], threading.enumerate()
