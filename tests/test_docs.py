"""The commands of the README and of docs/: each is run at tiny size, or where that cannot be, checked as far as it
goes."""

import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from programs import REPOSITORY, Done, run_program

import train.commands
import viewing.commands
from dataset.prepare.scannet import prepare_scannet
from dataset.prepare.transforms import prepare_transforms
from dataset.synthetic.generate import SIZES, generate
from train.settings import SCHEMA
from train.shipped import MODEL
from utils.config import load_config

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
BESIDE = [REPOSITORY / name for name in ("CONTRIBUTING.md", "data/README.md", "data/model/sray_plus/card.md")]
BESIDE += sorted((REPOSITORY / "benchmarks").rglob("*.md"))
MODULE, ROW = re.compile(r"`(\w+\.py)`"), re.compile(r"^\| `(\w+)/` \| (.*) \|$", re.M)
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAMES = {"MODEL": "model.pth", "CFG": "configs/cra/test_cra_synthetic.yaml", "SCENE": "scannet/test_000/black_64"}
TINY = [
    *["device=cpu", "worker_num=0", "cache=false", "renderer=plain", "depth_sample_num=4", "fine_depth_sample_num=4"],
    *[f"train_dataset_cfg.{change}" for change in ("min_wn=2", "max_wn=3", "train_ray_num=8")],
]
TRAINING = ["total_step=1", "val_set_list=[]"]
# Commands that are not run here, by what they contain, and why. What they say is still parsed, and their config loaded.
ONLY_PARSED = {
    "scannet.yaml": "needs ScanNet",
    "scannet_scene0376": "needs ScanNet",
    "replica.yaml": "needs Replica",
    "replica_office": "needs Replica",
    "configs/plus": "its patch is larger than the tiny rooms; tests/test_training.py trains it smaller",
    "synthetic_nodepth.yaml": "trains MVSNet, which takes longer than a test may",
    "ft_cra_synthetic": "starts from the weights of a training of its own",
    "viewer": "runs until Ctrl-C; tests/test_viewer.py opens it",
    "torchrun": "starts processes; tests/test_processes.py does",
    "dataset.synthetic full": "makes 54 rooms",
    "dataset.synthetic.pack": "needs libraries of models; tests/test_furniture.py writes one",
    "benchmarks.": "measures for minutes, on a GPU",
}


def commands_in(page: Path) -> list[str]:
    """Return the commands of a page's fenced blocks that have no language, each on one line, without comments."""
    # Blocks of all languages are matched: the end of one would else be taken for the start of another.
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.M | re.S)
    plain = [block for language, block in blocks if not language]
    lines = [line.strip() for block in plain for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith(("python ", "make ", "torchrun "))]


COMMANDS = list(dict.fromkeys(command for page in PAGES for command in commands_in(page)))
RUN = [c for c in COMMANDS if c.startswith("python ") and not any(part in c for part in ONLY_PARSED)]


@pytest.fixture(scope="module")
def clone(tmp_path_factory, rooms, replica_rooms, stand_in) -> Path:
    """A folder as a reader has it after the first training: configs, models, generated rooms, downloads, a capture."""
    root = tmp_path_factory.mktemp("clone")
    (root / "configs").symlink_to(REPOSITORY / "configs")
    (root / "docs").mkdir()
    (root / MODEL).parent.mkdir(parents=True)
    (root / MODEL).symlink_to(stand_in / MODEL)
    (root / "data/synthetic").symlink_to(rooms)
    (root / "downloads").mkdir()
    (root / "downloads/Replica").symlink_to(replica_rooms / "Replica")
    small = replace(SIZES["tiny"], rooms={"train": 1}, frames=24)
    generate(root / "downloads/scannet", "release", small)
    generate(root / "captures", "transforms", small)
    (root / "captures/kitchen").symlink_to(root / "captures/transforms/train_000")
    prepare_scannet(root / "downloads/scannet", root / "data/scannet", None, 1, 1)
    prepare_transforms(root / "captures/kitchen", root / "data/transforms", "kitchen")
    run(["run_training.py", "--cfg", "configs/cra/train_cra_synthetic.yaml", *TINY, *TRAINING], root)
    (root / "model.pth").symlink_to(root / "data/model/train_cra_synthetic/model.pth")
    return root


def run(words: list[str], folder: Path) -> Done:
    done = run_program(*words, folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def words_of(command: str, root: Path) -> list[str]:
    """Return what follows `python`, with the placeholders filled in and downloads found below `root`."""
    words = [NAMES.get(word, word) for word in shlex.split(command, comments=True)[1:]]
    words = [re.sub(r"^/(?=downloads/|captures/)", f"{root}/", word) for word in words]
    for i, word in enumerate(words[:-1]):
        if word == "--scene" and words[i + 1] == f"{root}/captures/kitchen":
            words[i + 1] += "/black_64"
    return words


@pytest.mark.parametrize("command", RUN)
def test_a_command_runs_at_tiny_size(command, clone):
    words = words_of(command, clone)
    if words[0].startswith("run_"):
        words += [*TINY, *TRAINING] if "training" in words[0] else TINY
    if "transforms/kitchen/black_320" in words and words[0].startswith("run_"):
        words += ["data_root=data"]  # the config that stands for CFG has another
    if "video" in words:
        words += ["--seconds", "0.1", "--fps", "10", "--width", "64"]
    if "pointcloud" in words or "mesh" in words:
        words += ["--views", "12", "--voxel", "0.1"]
    if "dataset.synthetic" in words:
        words += ["--rooms", "1", "0", "0", "--frames", "2"]
    if "dataset.check" in words:
        words += ["--sample", "4"]
    run(words, clone)


@pytest.mark.parametrize("command", [command for command in COMMANDS if "run_" in command])
def test_a_command_has_options_that_exist_and_a_config_that_loads(command, clone, monkeypatch):
    words = words_of(command, clone)
    program = next(i for i, word in enumerate(words) if word.startswith("run_"))
    seen = []

    def note(*args):  # what would follow is another test's
        seen.append(args[0])
        raise SystemExit(0)

    for module, name in (
        (train.commands, "Trainer"),
        (train.commands, "evaluate_model"),
        (viewing.commands, "open_session"),
    ):
        monkeypatch.setattr(module, name, note)
    run(words[program:], clone)
    assert seen[0].name


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("make ")])
def test_make_has_the_target(command):
    target = shlex.split(command, comments=True)[1]
    assert subprocess.run(["make", "--dry-run", target], cwd=REPOSITORY, capture_output=True).returncode == 0


def test_what_is_not_run_is_still_in_the_pages():
    assert [part for part in ONLY_PARSED if not any(part in command for command in COMMANDS)] == []


@pytest.mark.parametrize("page", [*PAGES, *BESIDE], ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text()):
        file, _, heading = link.partition("#")
        if "://" in link:
            continue
        target = page.parent / file if file else page
        assert target.exists(), link
        headings = re.findall(r"^#+ (.*)$", target.read_text(), re.M) if heading else []
        assert not heading or heading in [
            re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings
        ], link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_the_pages_imports_what_exists(page):
    for block in re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S):
        compile(block, page.name, "exec")
        imports = [line for line in block.splitlines() if line.startswith(("from ", "import "))]
        exec("\n".join(imports), {})


def test_the_configurations_page_is_current():
    made = run(["-m", "train.settings"], REPOSITORY)
    assert made.stdout == (REPOSITORY / "docs/configuration.md").read_text(), (
        "renew it: python -m train.settings --write docs/configuration.md"
    )
    assert [line for line in made.stdout.splitlines() if line.endswith("|  |")] == [], "a key without a comment"


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs/plus").glob("[tr]*.yaml")), ids=lambda path: path.stem)
def test_every_config_of_the_second_network_loads_and_is_named_like_its_file(path):
    assert load_config(path, SCHEMA).name == path.stem


@pytest.mark.parametrize("folder", ["dataset", "network", "train", "viewing"])
def test_the_map_of_the_code_names_every_module(folder):
    page = (REPOSITORY / "docs/network.md").read_text()
    named = [name for place, row in ROW.findall(page) if place == folder for name in MODULE.findall(row)]
    named += re.findall(rf"`{folder}/(\w+\.py)`", page[page.index("## The map") :])
    there = {path.name for path in (REPOSITORY / folder).glob("*.py")} - {"__init__.py"}
    assert set(named) == there and len(named) == len(there)


def test_the_messages_of_troubleshooting_are_those_of_the_source():
    """Each part of a quoted message, between what differs from case to case, stands in the code."""
    folders = ("dataset", "network", "train", "utils", "viewing")
    source = "\n".join(path.read_text() for folder in folders for path in (REPOSITORY / folder).rglob("*.py"))
    source = re.sub(r'"\n +f?"', "", source)  # one message on two lines
    symptoms = re.findall(r"^\| (.*?) \| ", (REPOSITORY / "docs/troubleshooting.md").read_text(), re.M)
    quoted = [part for symptom in symptoms for pair in re.findall(r"`` (.*?) ``|`([^`]+)`", symptom) for part in pair]
    parts = [part.strip() for message in quoted for part in re.split(r"…|'cuda'|\bnan\b|data/model/\S+", message)]
    parts = [part for part in parts if len(part) > 3 and "/" not in part]
    assert len(parts) > 30 and [part for part in parts if part not in source] == []


def test_the_readme_is_short():
    assert len((REPOSITORY / "README.md").read_text().split()) <= 1300
