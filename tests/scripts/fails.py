"""A process among several, of which RANK raises an error of KIND in its fourth step: fails.py RANK KIND."""

import sys

import torch

from train.processes import Processes
from utils.cli import run_command
from utils.errors import UserError


def main():
    processes, (rank, kind) = Processes(), sys.argv[1:]
    with processes.together(torch.device("cpu")):
        for step in range(10**6):
            if processes.rank == int(rank) and step == 3:
                raise {"UserError": UserError, "RuntimeError": RuntimeError}[kind]("the disk is on fire")
            processes.average(torch.ones(3))


run_command(main)
