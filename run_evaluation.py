"""Evaluates: python run_evaluation.py --cfg configs/cra/test_cra_scannet.yaml --model-path MODEL [key=value …]"""

from train.commands import evaluation
from utils.cli import run_command

if __name__ == "__main__":
    run_command(evaluation)
