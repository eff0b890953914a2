import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # One thread for each worker and what it starts: threads of several that wait for each other take many times as
    # long.
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"  # before torch is imported

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before the kernels are imported

from captures import opened

from dataset.labels import SCANNET_CLASSES
from dataset.scene import Scene
from dataset.synthetic.generate import SIZES, Size, generate
from dataset.synthetic.raycast import Light
from network import triton_setup
from network.convert import ship
from train.checkpoint import checkpoint_content, save_checkpoint
from train.run import build_network
from train.schedule import build_optimizer
from train.settings import SCHEMA
from utils import logging
from utils.config import check_config, load_config

if torch.cuda.is_available():
    triton_setup.prepare()  # some tests start kernels by themselves

REPOSITORY = Path(__file__).parent.parent
CAPTURE_SIZE, CAPTURE_FRAMES = (96, 128), 24  # of `capture` and `room`


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def full_float32():
    """Comparisons are made in full float32: TensorFloat-32 is on by default in cuDNN."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Returns the folder of a name, which `make` fills once for all worker processes of this run of the tests."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(name: str, make: Callable[[Path], None]) -> Path:
        with open(base / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (base / f"{name}.made").exists():
                (base / name).mkdir()
                make(base / name)
                (base / f"{name}.made").touch()
        return base / name

    return folder


@pytest.fixture(scope="session")
def rooms(shared) -> Path:
    """Tiny synthetic rooms in ScanNet's layout: scannet/{train_000,train_001,val_000,test_000}. Not to be changed."""
    return shared("rooms", lambda root: generate(root, "scannet", SIZES["tiny"]))


@pytest.fixture(scope="session")
def replica_rooms(shared) -> Path:
    """The same in Replica's layout: Replica/<room>/Sequence_1. Not to be changed."""
    return shared("replica", lambda root: generate(root, "replica", SIZES["tiny"]))


@pytest.fixture(scope="session")
def stand_in(shared) -> Path:
    """A folder with weights where the shipped ones lie: of S-Ray+, untrained, from three references. Beside them
    model.pth, the same as a checkpoint, and nodepth.safetensors of a network that finds depth itself. Not to be
    changed."""
    return shared("stand_in", make_stand_in)


def make_stand_in(root: Path) -> None:
    changes = ["train_dataset_cfg.min_wn=3", "train_dataset_cfg.max_wn=4", f"data_root={root}"]
    for front_end, checkpoint, file in (
        ("learned_depth", "nodepth.pth", "nodepth.safetensors"),
        ("depth", "model.pth", "data/model/sray_plus/model.safetensors"),
    ):
        cfg = load_config(REPOSITORY / "configs/plus/surfaces.yaml", SCHEMA, [*changes, f"init_net_type={front_end}"])
        network = build_network(cfg, "cpu")
        content = checkpoint_content(network, build_optimizer(network, cfg), 7, 7, 0.5, cfg, tuple(SCANNET_CLASSES))
        save_checkpoint(root / checkpoint, content)
        ship(root / checkpoint, root / file)


@pytest.fixture
def config(rooms, tmp_path):
    """Makes small configs over the tiny rooms; keyword arguments change keys."""

    def make(**changes):
        values = {
            "name": "run",
            "data_root": str(rooms),
            "cache": False,
            "output_root": str(tmp_path / "model"),
            "device": "cpu",
            "worker_num": 0,
            "train_set_list": str(rooms / "train.txt"),
            "val_set_list": ["scannet/val_000/black_32"],  # a validation renders whole views, which takes longest here
            "depth_sample_num": 8,
            "fine_depth_sample_num": 8,
            "ray_mask_point_num": 2,  # of the published 8 no ray of 8 samples would be scored
            "total_step": 6,
            "val_interval": 100,
            "save_interval": 3,
            "max_grad_norm": 10,
            "train_dataset_cfg": {"train_ray_num": 32, "min_wn": 3, "max_wn": 4},
        }
        return check_config({**values, **changes}, SCHEMA)

    return make


def make_capture(root: Path, kind: str) -> None:
    generate(root, kind, Size({"train": 1}, CAPTURE_FRAMES, CAPTURE_SIZE, Light(0.6, 4, 2), 1))


@pytest.fixture(scope="session")
def base(shared) -> Path:
    """A capture's folder. Not to be changed."""
    return shared("base", lambda root: make_capture(root, "transforms")) / "transforms" / "train_000"


@pytest.fixture(scope="session")
def truth(base) -> Scene:
    """The capture's scene. Not to be changed."""
    return opened(base)


@pytest.fixture(scope="session")
def scannet_base(shared) -> Path:
    """The same room in ScanNet's layout. Not to be changed."""
    return shared("base_scannet", lambda root: make_capture(root, "scannet"))


@pytest.fixture
def capture(base, tmp_path):
    """A copy of the capture that a test may change."""
    logging.forget()
    return Path(shutil.copytree(base, tmp_path / "capture"))


@pytest.fixture
def room(scannet_base, tmp_path):
    """A copy of the room in ScanNet's layout: the data root."""
    logging.forget()
    return Path(shutil.copytree(scannet_base, tmp_path / "data"))
