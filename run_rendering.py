"""Shows: python run_rendering.py video|viewer|pointcloud|mesh|labels --cfg CFG --model-path MODEL --scene SCENE
[key=value …]"""

from utils.cli import run_command
from viewing.commands import rendering

if __name__ == "__main__":
    run_command(rendering)
