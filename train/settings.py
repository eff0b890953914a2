"""The schema of the config: all keys, collected from the `DEFAULTS` of the modules that own them.

`python -m train.settings` prints them as a table, with the comments at their defaults as descriptions;
`python -m train.settings --write docs/configuration.md` updates the page.
"""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path
from typing import Any

import yaml

from dataset import augmentation, cache, database, few_labels, render_dataset
from network import init_net, renderer, view_renderer
from network.front_ends import cost_volume, depth, learned_depth
from train import averaging, evaluator, schedule, step, trainer
from utils.cli import command_parser, run_command
from utils.config import Setting, no_effect, type_names
from utils.files import write_text

RUN = {
    "name": Setting("unnamed", str),  # name of the run, and of its folder below output_root
    "output_root": "data/model",  # where runs write their folders
    "device": Setting("auto", str),  # auto: a GPU where there is one; cpu, cuda, cuda:1
    "worker_num": Setting(None, int, minimum=0),  # processes that decode images; null: by the number of cores
    "seed": Setting(0, int, minimum=0),  # of all random number generators
    "ignore_label": Setting(None, int),  # number of the ignored class; only K is valid, and the default
    "semantic_color_map": Setting(None, list),  # K+1 RGB colours, 0 to 255; null: the dataset's own
}
SECTIONS: dict[str, dict[str, Any]] = {
    "Run": RUN,
    "Data": render_dataset.DEFAULTS,
    "Network": renderer.DEFAULTS,
    "Rendering": view_renderer.DEFAULTS,
    "Optimiser": schedule.DEFAULTS,
    "Losses and steps": step.DEFAULTS,
    "Training": trainer.DEFAULTS,
    "Evaluation": evaluator.DEFAULTS,
}
SCHEMA = {
    **{key: default for section in SECTIONS.values() for key, default in section.items()},
    **no_effect("use_depth_loss", "use_dr_loss", "use_dr_fine_loss", "multi_gpus"),
}
OWNERS = (
    augmentation,
    init_net,
    cache,
    database,
    few_labels,
    render_dataset,
    depth,
    cost_volume,
    learned_depth,
    renderer,
    view_renderer,
    schedule,
    averaging,
    step,
    trainer,
    evaluator,
)
INTRODUCTION = """# Configuration

A config is a YAML file. `base: OTHER.yaml` names a file, relative to itself, whose keys it changes. Any key can also be
changed on the command line: `name=fewer_rays train_dataset_cfg.train_ray_num=512`. An unknown key or a value of a wrong
type is an error that names the file and the nearest valid key.

These are the defaults of the code. `configs/base.yaml` has the settings of the paper, and `configs/plus/surfaces.yaml`
those of S-Ray+. K is the number of classes; sizes are in pixels, lengths in metres.

*Made by `python -m train.settings --write docs/configuration.md` from the defaults and their comments in the source.*
"""


def comments_in(source: str) -> dict[str, str]:
    """Return the comment of each key in the dictionaries of a Python source: on the lines above it, or behind it."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token for token in tokens if token.type == tokenize.COMMENT}
    alone = {line for line, token in comments.items() if token.line.lstrip().startswith("#")}
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse(source)):
        for key, value in zip(node.keys, node.values, strict=True) if isinstance(node, ast.Dict) else ():
            if not isinstance(key, ast.Constant) or isinstance(value, ast.Dict):
                continue
            lines = [line for line in range(key.lineno, value.end_lineno + 1) if line in comments]
            above = key.lineno - 1
            while above in alone:
                lines.insert(0, above)
                above -= 1
            if lines:
                found.setdefault(str(key.value), " ".join(comments[line].string.lstrip("# ") for line in lines))
    return found


def meanings() -> dict[str, str]:
    """Return the meaning of each key, by its name without the section."""
    found: dict[str, str] = {}
    for path in (__file__, *[module.__file__ for module in OWNERS]):
        found = {**comments_in(Path(path).read_text()), **found}
    return found


def settings_in(section: dict, prefix: str = "") -> dict[str, Setting]:
    """Return the settings of a section by their dotted names, without those that have no effect."""
    found: dict[str, Setting] = {}
    for key, default in section.items():
        if isinstance(default, dict):
            found |= settings_in(default, f"{prefix}{key}.")
        else:
            setting = default if isinstance(default, Setting) else Setting(default, type(default))
            found |= {} if setting.no_effect else {f"{prefix}{key}": setting}
    return found


def to_markdown() -> str:
    """Return docs/configuration.md."""
    known, parts = meanings(), [INTRODUCTION]
    for title, section in SECTIONS.items():
        parts += [f"## {title}\n", "| key | default | takes | meaning |\n|---|---|---|---|"]
        for key, setting in settings_in(section).items():
            meaning = known.get(key.rpartition(".")[2], "").replace("|", r"\|")
            parts.append(f"| `{key}` | `{_as_yaml(setting.default)}` | {_accepted(setting)} | {meaning} |")
        parts.append("")
    parts.append("## Without effect\n\nAccepted because published files have them, and named in a warning:")
    parts.append(", ".join(f"`{key}`" for key in _idle(SCHEMA)) + ".")
    return "\n".join(parts) + "\n"


def _idle(section: dict) -> list[str]:
    """Return the keys that have no effect, in order, each once."""
    found: dict[str, None] = {}
    for key, default in section.items():
        if isinstance(default, dict):
            found |= dict.fromkeys(_idle(default))
        elif isinstance(default, Setting) and default.no_effect:
            found[key] = None
    return list(found)


def _as_yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def _accepted(setting: Setting) -> str:
    if setting.choices is not None:
        return ", ".join(f"`{choice}`" for choice in setting.choices)
    bounds = [("from", setting.minimum), ("to", setting.maximum)]
    return " ".join([type_names(setting), *[f"{word} {bound:g}" for word, bound in bounds if bound is not None]])


def main() -> None:
    parser = command_parser(
        "python -m train.settings",
        "Print every key of a config with its type, default and meaning, as Markdown.",
        "python -m train.settings --write docs/configuration.md",
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page to a file (default: print it)")
    args = parser.parse_args()
    if args.write is None:
        print(to_markdown(), end="")
    else:
        write_text(args.write, to_markdown())


if __name__ == "__main__":
    run_command(main)
