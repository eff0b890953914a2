"""Training whose process writes its id into FOLDER first: trains.py FOLDER and what run_training.py is given."""

import os
import runpy
import sys
from pathlib import Path

(Path(sys.argv.pop(1)) / f"{os.environ['RANK']}.pid").write_text(str(os.getpid()))
runpy.run_path("run_training.py", run_name="__main__")
