"""Opening of the scenes that a config names, with the options of the config."""

from __future__ import annotations

from pathlib import Path

from dataset.cache import DEFAULTS as CACHE_DEFAULTS
from dataset.cache import Cache
from dataset.replica import replica_scene
from dataset.scannet import LABEL_IDS, scannet_scene
from dataset.scene import Scene, SceneFiles, SceneName
from dataset.transforms import transforms_scene
from utils.config import Setting
from utils.errors import UserError
from utils.files import find_file, read_text

SPLITS = Path("configs/splits")
AUTO = "auto"  # as a `depth_range`
SCENE_KINDS = {"scannet": scannet_scene, "replica": replica_scene, "transforms": transforms_scene}
TRAINING_LISTS = {  # what `train_database_types` stands for where no `train_set_list` is given
    "scannet": "scannetv2_train_split.txt",
    "scannet_single": "scannet_single.txt",
    "replica": "replica_train_split.txt",
}
DEFAULTS = {
    "data_root": "data",  # folder of the scenes
    **CACHE_DEFAULTS,
    "label_ids": "auto",  # ids in ScanNet's label maps: raw or nyu40; auto: by the name of their folder
    # near and far in metres of all scenes; null: the default of each dataset; auto: estimated for each scene
    "depth_range": Setting(None, (list, str)),
    # database names of the training scenes, or a file with one per line; null: those of train_database_types
    "train_set_list": Setting(None, (list, str)),
    # database names of the test scenes, a file of them, or the published list of {name, cfg: {val_database_name}}
    "val_set_list": Setting([], (list, str)),
}


def open_scene(name: str, data_root: str | Path, cache: Cache | None = None, label_ids: str = "auto") -> Scene:
    """Open a scene by its database name, or a folder with a transforms.json. Raise UserError if it cannot be used.

    label_ids: of ScanNet's label maps, see `scannet.LABEL_IDS`.
    """
    return Scene(_find_files(name, data_root, label_ids), cache)


def has_depth(name: str, data_root: str | Path) -> bool:
    """Return whether a scene has depth maps. Raise UserError like `open_scene`."""
    return "depth" in _find_files(name, data_root).files


def _find_files(name: str, data_root: str | Path, label_ids: str = "auto") -> SceneFiles:
    parsed = scene_name(name)
    if parsed.kind not in SCENE_KINDS:
        raise UserError(f"'{name}': unknown database type '{parsed.kind}'; there are {', '.join(SCENE_KINDS)}")
    options = {"label_ids": label_ids} if parsed.kind == "scannet" else {}
    return SCENE_KINDS[parsed.kind](parsed, Path(data_root), **options)


def scene_name(text: str) -> SceneName:
    """Return the name of a capture's folder, or a database name. Raise UserError if it is neither."""
    return SceneName.of_folder(text) or SceneName.parse(text)


def configured_scene(name: str, cfg, use_depth: bool) -> Scene:
    """Open a scene with the config's `data_root`, `depth_range`, `label_ids` and cache keys.

    use_depth: the network reads depth maps, so that the depth range may be found from them.
    """
    if cfg.label_ids not in LABEL_IDS:
        raise UserError(f"`label_ids` should be one of {', '.join(LABEL_IDS)}, but is {cfg.label_ids}")
    scene = open_scene(name, cfg.data_root, Cache.of(cfg), label_ids=cfg.label_ids)
    set_depth_range(scene, cfg, use_depth)
    return scene


def set_depth_range(scene: Scene, cfg, use_depth: bool) -> None:
    """Set the near and far of a scene to the config's `depth_range`. use_depth: see `configured_scene`."""
    if cfg.depth_range == AUTO:
        scene.fit_depth_range(use_depth)
    else:
        scene.depth_range = _near_and_far(cfg.depth_range) or scene.depth_range


def _near_and_far(value: list | str | None) -> tuple[float, float] | None:
    """Return near and far of a config's `depth_range`, None for null. Raise UserError for any other value."""
    if value is None:
        return None
    numbers = isinstance(value, list | tuple) and all(isinstance(end, int | float) for end in value)
    if not (numbers and len(value) == 2 and 0 < value[0] < value[1]):
        raise UserError(f"`depth_range` should be near and far in metres, 0 < near < far, or {AUTO}, but is {value!r}")
    return tuple(value)


def list_scenes(value: list | str, key: str) -> list[str]:
    """Return the database names in a config value: a list of names or published entries, or a file with one name per
    line."""
    if isinstance(value, str):
        path = find_file(value, SPLITS)
        names = [line.split("#")[0].strip() for line in read_text(path).splitlines()]
        names = [name for name in names if name]
        if not names:
            raise UserError(f"{path} ({key}): lists no scenes")
        return names
    return [_listed_name(entry, key) for entry in value]


def _listed_name(entry, key: str) -> str:
    if isinstance(entry, dict):
        entry = (entry.get("cfg") or {}).get("val_database_name")
    if not isinstance(entry, str):
        raise UserError(f"`{key}`: an entry should be a database name, or have one as cfg.val_database_name")
    return entry


def training_names(cfg) -> list[str]:
    """Return the training scenes of a config, from its own list or by its database types."""
    if cfg.train_set_list is not None:
        return list_scenes(cfg.train_set_list, "train_set_list")
    names = []
    for kind in cfg.train_dataset_cfg.train_database_types:
        if kind not in TRAINING_LISTS:
            raise UserError(
                f"`train_dataset_cfg.train_database_types`: '{kind}' has no list of scenes "
                f"(there are {', '.join(TRAINING_LISTS)}); name them in train_set_list"
            )
        names += list_scenes(str(SPLITS / TRAINING_LISTS[kind]), "train_database_types")
    return names


def held_out_scenes(names: list[str], data_root: str | Path) -> set[Path]:
    """Return the folders of scenes, which do not depend on the image width in their names; for
    `TrainingSet.held_out`."""
    return {scene_name(name).folder(data_root).resolve() for name in names}
