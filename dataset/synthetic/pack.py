"""A pack of furniture models in one file: `python -m dataset.synthetic.pack FOLDER --out data/furniture.npz`.

FOLDER holds Scopia.sh3f and BlendSwap-CC-0.sh3f; other libraries have to be named as files. Rooms can be generated from
the pack without the libraries. ATTRIBUTION.md, written beside it, names the authors of the models.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from dataset.synthetic.catalogue import kind_of
from dataset.synthetic.models import Item, Library, Model, Skin, libraries, packed, unpacked
from utils.cli import command_parser, run_command
from utils.errors import UserError
from utils.files import atomic_write, write_text
from utils.logging import say

ATTRIBUTION = "ATTRIBUTION.md"
JPEG_QUALITY = 88


class Furniture:
    """The models in a pack, by kind. Raise UserError for a file that is no pack."""

    def __init__(self, path: Path):
        try:
            self._file = np.load(path)
            entries = json.loads(str(self._file["catalogue"]))
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{path}: is no pack of furniture ({error}); make it with dataset.synthetic.pack") from None
        self.attribution = str(self._file["attribution"])
        self._skins = [entry.pop("skins") for entry in entries]
        self.items = [Item(**entry) for entry in entries]
        self.kinds: dict[str, list[int]] = {}
        for number, item in enumerate(self.items):
            self.kinds.setdefault(kind_of(item), []).append(number)

    def load(self, number: int) -> Model:
        data = {key: self._file[f"{number}/{key}"] for key in ("low", "step", "corners", "index", "skin")}
        skins = [
            Skin(name, np.array(color), _decoded(self._file[f"{number}/texture{i}"]) if textured else None)
            for i, (name, color, textured) in enumerate(self._skins[number])
        ]
        return unpacked(data, self.items[number], skins)


def pack(paths: list[Path], out: Path) -> None:
    """Write a pack of the libraries at `paths` (see `libraries`) to `out`, and its attribution beside it."""
    chosen = libraries(paths)
    wanted = [(library, name) for library in chosen for name, item in library.items.items() if kind_of(item)]
    arrays, entries = {}, []
    for library, name in tqdm(wanted, desc="models"):
        model = library.load(name)
        if model is None:
            continue
        number = len(entries)
        skins = [(skin.name, skin.color.round(4).tolist(), skin.texture is not None) for skin in model.skins]
        entries.append({**asdict(model.item), "skins": skins})
        arrays |= {f"{number}/{key}": value for key, value in packed(model).items()}
        for i, skin in enumerate(model.skins):
            if skin.texture is not None:
                arrays[f"{number}/texture{i}"] = _encoded(skin.texture)
    text = attribution(chosen, entries)
    with atomic_write(out) as temporary:
        _save(temporary, {"catalogue": np.array(json.dumps(entries)), "attribution": np.array(text), **arrays})
    write_text(out.parent / ATTRIBUTION, text)
    say(f"{len(entries)} models are in {out} ({out.stat().st_size / 2**20:.1f} MB)")


def add_pack(paths: list[Path], folder: Path) -> Path:
    """Return the pack for the rooms in `folder`: `paths` if it is a pack, otherwise one made in the folder from the
    libraries at `paths`. Write the attribution of its models to the folder."""
    if len(paths) == 1 and paths[0].suffix == ".npz":
        write_text(folder / ATTRIBUTION, Furniture(paths[0]).attribution)
        return paths[0]
    made = folder / "furniture.npz"
    if not made.is_file():
        pack(paths, made)
    return made


def attribution(chosen: list[Library], entries: list[dict]) -> str:
    """Return a text with the authors and licences of the models, and the changes made to them."""
    lines = [
        "# Furniture models in these rooms",
        "",
        "From Sweet Home 3D's libraries, http://www.sweethome3d.com/importModels.jsp. Changes: models are scaled to",
        "the sizes in the catalogue, and textures are reduced; sizes, colours and textures vary from room to room, and",
        "some models are mirrored.",
    ]
    for library in chosen:
        used = [entry for entry in entries if entry["library"] == library.path.stem]
        lines += ["", f"## {library.path.stem}: {library.license}", ""]
        lines += [f"- {entry['name']} ({entry['id']}), by {entry['creator'] or 'unknown'}" for entry in used]
        terms = [line.strip() for line in library.license_text.splitlines() if line.strip()]
        lines += ["", "Its licence file:", "", *(f"> {line}" for line in terms)] if terms else []
    return "\n".join(lines) + "\n"


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as a .npz file with LZMA compression, which NumPy can read but not write."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, values, allow_pickle=False)


def _encoded(texture: np.ndarray) -> np.ndarray:
    if texture.shape[2] == 4:
        return cv2.imencode(".png", texture[..., [2, 1, 0, 3]])[1]
    return cv2.imencode(".jpg", texture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]


def _decoded(data: np.ndarray) -> np.ndarray:
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    return np.ascontiguousarray(image[..., [2, 1, 0, 3][: image.shape[2]]])


def main() -> None:
    parser = command_parser(
        "python -m dataset.synthetic.pack",
        "Pack the furniture models of Sweet Home 3D libraries into one file, from which\n"
        "`python -m dataset.synthetic --furniture` furnishes rooms.\n\n"
        "From a folder, Scopia.sh3f and BlendSwap-CC-0.sh3f are used; name other libraries\n"
        "as files. ATTRIBUTION.md beside the pack names the authors of the models.",
        "python -m dataset.synthetic.pack /usr/share/sweethome3d/furniture --out data/furniture.npz",
    )
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help=".sh3f files, or a folder of them")
    parser.add_argument(
        "--out", type=Path, default=Path("data/furniture.npz"), help="file to write (default: %(default)s)"
    )
    args = parser.parse_args()
    pack(args.paths, args.out)


if __name__ == "__main__":
    run_command(main)
