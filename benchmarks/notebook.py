"""Runs the code of a notebook and keeps the pictures in it: python -m benchmarks.notebook docs/semray.ipynb

A cell shows what its last line is worth, if that is a picture of Pillow's. Jupyter runs the same notebook.
"""

from __future__ import annotations

import ast
import base64
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from utils.cli import command_parser, run_command
from utils.files import read_json, write_text


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """Run the source of a cell in `names`. Return the value of its last line, if that is an expression."""
    body = ast.parse(source).body
    last = ast.Expression(body.pop().value) if body and isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return None if last is None else eval(compile(last, "cell", "eval"), names)


def as_output(picture: Image.Image) -> dict[str, Any]:
    """Return a picture as the output of a cell."""
    data = io.BytesIO()
    picture.save(data, "PNG", optimize=True)
    shown = {"image/png": base64.b64encode(data.getvalue()).decode()}
    return {"output_type": "display_data", "data": shown, "metadata": {}}


def run_notebook(content: dict[str, Any]) -> None:
    """Run all code cells of a notebook, and put what they show into it."""
    names: dict[str, Any] = {}
    for number, cell in enumerate((cell for cell in content["cells"] if cell["cell_type"] == "code"), 1):
        value = run_cell("".join(cell["source"]), names)
        cell["outputs"] = [as_output(value)] if isinstance(value, Image.Image) else []
        cell["execution_count"] = number


def main() -> None:
    parser = command_parser("python -m benchmarks.notebook", __doc__)
    parser.add_argument("notebook", type=Path, help="file to run, and to write the pictures into")
    args = parser.parse_args()
    content = read_json(args.notebook, "there is no such notebook")
    run_notebook(content)
    write_text(args.notebook, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    run_command(main)
