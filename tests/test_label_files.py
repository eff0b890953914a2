"""Label maps and their tables as people have them: which ids they hold, of any type."""

import cv2
import numpy as np
import pytest
from captures import ROOM, SIZE, check, to_nyu40
from PIL import Image

from dataset.check.page import verdict
from dataset.database import open_scene
from dataset.maps import read_ids
from dataset.render_dataset import Needs, TrainingSet
from utils.errors import UserError
from utils.files import read_json
from utils.images import write_image


def test_nyu40_ids_are_noticed_and_a_key_says_which(room, scannet_base, capsys, config):
    to_nyu40(room)
    open_scene(ROOM, room)
    assert "look like NYU40 ids; set label_ids" in capsys.readouterr().err
    assert any("look like NYU40" in line for line in verdict(check(ROOM, room, 0)))
    truth = open_scene(ROOM, scannet_base).views(["5"], labels=True).labels
    assert (open_scene(ROOM, room, label_ids="nyu40").views(["5"], labels=True).labels == truth).all()
    assert verdict(check(ROOM, room, 0, "nyu40")) == []
    capsys.readouterr()
    open_scene(ROOM, scannet_base)
    assert "NYU40" not in capsys.readouterr().err
    with pytest.raises(UserError, match="`label_ids` should be one of"):
        TrainingSet(config(label_ids="nyu"), 0, Needs())


def test_label_maps_of_any_type(tmp_path):
    ids = (np.arange(64) % 13).astype(np.uint8).reshape(8, 8)
    palette = Image.fromarray(ids)
    palette.putpalette([(7 * i) % 256 for i in range(768)])
    palette.save(tmp_path / "palette.png")
    write_image(tmp_path / "three.png", np.repeat(ids[..., None], 3, -1))
    cv2.imwrite(
        str(tmp_path / "alpha.png"),
        np.concatenate([np.repeat(ids[..., None], 3, -1), np.full((8, 8, 1), 255, np.uint8)], -1),
    )
    Image.fromarray(ids.astype(np.int32)).save(tmp_path / "int.tif")
    np.save(tmp_path / "array.npy", ids.astype(np.int16))
    four = Image.fromarray(ids)
    four.putpalette([(7 * i) % 256 for i in range(48)])
    four.save(tmp_path / "few.png", bits=4)
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(read_ids(path), ids, err_msg=path.name)


def test_eight_bit_labels_of_a_large_table_and_negative_ids(room):
    path = room / "scannet" / "train_000" / "label-filt" / "5.png"
    write_image(path, (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) % 2 + 1).astype(np.uint8))  # of a table up to 1163
    assert set(open_scene(ROOM, room).views(["5"], labels=True).labels.unique().tolist()) == {0, 4}
    np.save(path.with_suffix(".npy"), np.full(SIZE, -1, np.int16))
    path.unlink()
    with pytest.raises(UserError, match="label ids -1 are not in"):
        open_scene(ROOM, room).views(["5"], labels=True)


def test_a_byte_order_mark_and_empty_cells(room, tmp_path, config):
    table = room / "scannet" / "scannetv2-labels.combined.tsv"
    lines = table.read_text().splitlines()
    cells = lines[-1].split("\t")
    cells[0], cells[lines[0].split("\t").index("nyu40id")] = "900", ""
    table.write_text("\ufeff" + "\n".join([*lines, "\t".join(cells)]) + "\n", encoding="utf-8")
    scene = open_scene(ROOM, room)
    assert scene.labels.lookup[900] == 20 and scene.labels.lookup[1] == 0
    listed = tmp_path / "list.txt"
    listed.write_text("\ufeffscannet/train_000/black_64\n", encoding="utf-8")
    assert TrainingSet(config(train_set_list=str(listed), data_root=str(room)), 0, Needs()).scenes[0].name == ROOM
    path = tmp_path / "x.json"
    path.write_text('\ufeff{"a": 1}', encoding="utf-8")
    assert read_json(path, "") == {"a": 1}
    path.write_bytes("{'ä': 1}".encode("latin-1"))
    with pytest.raises(UserError, match="is not text in UTF-8"):
        read_json(path, "")
