"""Trains or fine-tunes: python run_training.py --cfg configs/cra/train_cra_scannet.yaml [key=value …]"""

from train.commands import training
from utils.cli import run_command

if __name__ == "__main__":
    run_command(training)
