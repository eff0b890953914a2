"""Rooms of furniture models: libraries are read as Sweet Home 3D means them, packs lose nothing that shows, rays meet
what is there, and things stand where they should."""

import json
import sys
import zipfile
from dataclasses import replace

import cv2
import numpy as np
import pytest

from dataset.synthetic import dressing, fixtures, modelled, textures, walks
from dataset.synthetic.catalogue import class_of, kind_of
from dataset.synthetic.generate import Size, generate
from dataset.synthetic.meshcast import CLASS_NAMES, IGNORED, MeshCaster
from dataset.synthetic.meshes import Lamp, Mesh, MeshRoom, Surface, block, subdivided
from dataset.synthetic.models import Item, Library, Skin, libraries, packed, unpacked
from dataset.synthetic.pack import ATTRIBUTION, Furniture, pack
from dataset.synthetic.placing import CLEARANCE, extent
from dataset.synthetic.raycast import Light
from utils.errors import UserError

pytest.importorskip("embreex")

# Two quads: one in front (z = 1), textured; a glass pane behind. The file's x is up: modelRotation turns it.
OBJ = """mtllib thing.mtl
v 0 0 0
v 0 2 0
v 4 2 0
v 4 0 0
v 0 0 1
v 0 2 1
v 4 2 1
v 4 0 1
vt 0 0
vt 1 0
vt 1 1
vt 0 1
usemtl face
f -4/1 -3/2 -2/3 -1/4
usemtl glass
f 1 2 3 4
usemtl lost
f 1 2 6 5
"""
MTL = """newmtl face
Kd 0.5 0.5 0.5
map_Kd face.png
newmtl glass
Kd 0.9 0.9 0.9
d 0.2
newmtl lost
Kd 0.25 0.5 0.75
map_Kd C:\\Documents and Settings\\nobody\\wood.jpg
"""
TURN = "0 1 0 1 0 0 0 0 1"  # swaps x and y


def catalogue(*items) -> str:
    """The properties of items given as dictionaries, each a change of a plain one."""
    lines = ["license=Creative Commons", "name=Test"]
    for number, changes in enumerate(items, 1):
        entry = {"id": f"Test#item{number}", "name": "Chair", "category": "Living room", "creator": "Somebody"}
        entry |= {"width": "50", "depth": "40", "height": "90", "model": "/m/thing.obj"} | changes
        lines += [f"{key}#{number}={value}" for key, value in entry.items()]
    return "\n".join(lines)


def write_library(path, *items, obj=OBJ):
    face = np.zeros((8, 8, 3), np.uint8)
    face[:4] = 255  # the upper half is white
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", catalogue(*items))
        archive.writestr("m/thing.obj", obj)
        archive.writestr("m/thing.mtl", MTL)
        archive.writestr("m/face.png", cv2.imencode(".png", face)[1].tobytes())
    return path


@pytest.fixture(scope="module")
def thing(tmp_path_factory):
    path = write_library(tmp_path_factory.mktemp("library") / "Test.sh3f", {"modelRotation": TURN, "elevation": "30"})
    return Library(path).load("item1")


@pytest.fixture(scope="module")
def furniture(tmp_path_factory) -> Furniture:
    """A pack of a few kinds, all of them the same two quads."""
    folder = tmp_path_factory.mktemp("pack")
    sizes = {"Table": ("120", "80", "75"), "Chair": ("45", "45", "90"), "Bookcase": ("90", "35", "180")}
    items = [
        {"name": name, "width": width, "depth": depth, "height": height, "modelRotation": TURN}
        for name, (width, depth, height) in sizes.items()
    ]
    pack([write_library(folder / "Mine.sh3f", *items)], folder / "furniture.npz")
    return Furniture(folder / "furniture.npz")


def test_a_model_has_the_size_of_the_catalogue_and_stands_as_it_should(thing):
    points = thing.triangles.reshape(-1, 3)
    np.testing.assert_allclose(points.min(0), [-0.25, 0, 0], atol=1e-6)
    np.testing.assert_allclose(points.max(0), [0.25, 0.4, 0.9], atol=1e-6)
    assert thing.item.elevation == 0.3
    # Sweet Home 3D's z looks at the room: the face, at z = 1, is at the front
    chosen = thing.skin == [skin.name for skin in thing.skins].index("face")
    np.testing.assert_allclose(thing.triangles[chosen][..., 1], 0.4, atol=1e-6)
    # the file's (0, 2, 1), which is modelRotation's (2, 0, 1): to the right of who looks at the front, at the floor
    place = thing.triangles[chosen][(thing.uv[chosen] == [1, 0]).all(-1)][0]
    np.testing.assert_allclose(place, [-0.25, 0.4, 0], atol=1e-6)


def test_axes_are_turned_but_not_mirrored(tmp_path):
    model = Library(write_library(tmp_path / "Test.sh3f", {})).load("item1")
    face = model.triangles[model.skin == [skin.name for skin in model.skins].index("face")]
    # seen from the front, the corner at the file's (0, 0) is on the left: x is larger there, as x points to the left
    corner = model.uv[model.skin == [skin.name for skin in model.skins].index("face")] == [0, 0]
    place = face[corner.all(-1)][0]
    np.testing.assert_allclose(place, [0.25, 0.4, 0], atol=1e-6)


def test_glass_is_left_out_and_a_texture_that_the_library_lacks_is_a_colour(thing):
    skins = {skin.name: skin for skin in thing.skins}
    assert set(skins) == {"face", "lost"}
    assert skins["lost"].texture is None and skins["lost"].color.tolist() == [0.25, 0.5, 0.75]
    # row 0 of a texture is at v = 0, the lower edge of the image
    assert (skins["face"].texture[0] == 0).all() and (skins["face"].texture[-1] == 255).all()


def test_models_of_too_many_triangles_are_left_out(tmp_path, monkeypatch):
    library = Library(write_library(tmp_path / "Test.sh3f", {}))
    monkeypatch.setattr("dataset.synthetic.models.MOST_TRIANGLES", 5)
    assert library.load("item1") is None
    monkeypatch.setattr("dataset.synthetic.models.MOST_TRIANGLES", 6)
    assert library.load("item1") is not None


def test_a_packed_model_is_the_same_to_half_a_millimetre(thing):
    thing = replace(thing, triangles=thing.triangles * 1.0137)
    again = unpacked(packed(thing), thing.item, thing.skins)
    order = np.argsort(thing.skin, kind="stable")
    np.testing.assert_allclose(again.triangles, thing.triangles[order], atol=0.0003)
    np.testing.assert_allclose(again.uv, thing.uv[order], atol=1e-3)
    assert np.isnan(again.uv).any() and (again.skin == thing.skin[order]).all()
    assert ((again.normals * thing.normals[order]).sum(-1) > 0.99).all()


def test_a_pack_holds_models_names_and_whose_they_are(furniture):
    assert {kind: len(numbers) for kind, numbers in furniture.kinds.items()} == {"table": 1, "chair": 1, "bookshelf": 1}
    model = furniture.load(furniture.kinds["table"][0])
    np.testing.assert_allclose(np.ptp(model.triangles.reshape(-1, 3), 0), [1.2, 0.8, 0.75], atol=0.001)
    assert any(skin.texture is not None for skin in model.skins)
    assert "Creative Commons" in furniture.attribution and "Somebody" in furniture.attribution


def item(name: str, size=(0.5, 0.5, 0.8), category="Living room", tags="", elevation=0.0) -> Item:
    return Item("Test", "id", name, category, tags, "", size, elevation)


@pytest.mark.parametrize(
    ("given", "kind", "label"),
    [
        (item("Oak chair"), "chair", "chair"),
        (item("Chair", category="Office"), "office_chair", "chair"),
        (item("Coffee table"), "coffee_table", "table"),
        (item("Table", (1.2, 0.8, 0.75)), "table", "table"),
        (item("Bedside table"), "bedside", None),
        (item("Child bed", (0.9, 2.0, 0.8)), "bed", "bed"),
        (item("Corner sofa", (2.3, 1.5, 0.8)), "sofa", "sofa"),
        (item("Wardrobe", (2.0, 0.6, 2.2)), "wardrobe", "cabinet"),
        (item("Bookcase", (0.9, 0.3, 1.5)), "bookshelf", "bookshelf"),
        (item("Large fridge", (0.9, 0.8, 1.8)), "fridge", "refrigerator"),
        (item("Toilets unit"), "toilet", "toilet"),
        (item("Washbasin", elevation=0.4), "basin", "sink"),
        (item("Lamp", (0.2, 0.2, 0.5)), "table_lamp", "otherfurniture"),
        (item("Lamp", (0.2, 0.2, 1.5)), "floor_lamp", "otherfurniture"),
        (item("Teapot", (0.2, 0.15, 0.2), "Kitchen"), "food", None),
        (item("Baby high chair"), None, None),
        (item("Chair", category="Exterior"), None, None),
        (item("Pool table", (2.5, 1.4, 0.8)), None, None),
    ],
)
def test_names_say_what_things_are(given, kind, label):
    assert kind_of(given) == kind
    if kind:
        assert class_of(kind, "any material") == label


def test_a_material_can_have_a_class_of_its_own():
    assert class_of("vanity", "mirror") is None and class_of("vanity", "white_ceramic") == "sink"
    assert class_of("base", "counter") == "counter" and class_of("base", "cabinetDoor") == "cabinet"


def test_folders_are_searched_for_free_libraries_only(tmp_path):
    for name in ("Scopia", "BlendSwap-CC-0", "Other"):
        write_library(tmp_path / f"{name}.sh3f", {})
    assert [library.path.stem for library in libraries([tmp_path])] == ["BlendSwap-CC-0", "Scopia"]
    assert [library.path.stem for library in libraries([tmp_path / "Other.sh3f"])] == ["Other"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: holds neither of BlendSwap-CC-0.sh3f and Scopia.sh3f"):
        libraries([tmp_path / "empty"])
    (tmp_path / "bad.sh3f").write_bytes(b"no zip")
    with pytest.raises(UserError, match=r"bad.sh3f: is no Sweet Home 3D furniture library"):
        libraries([tmp_path / "bad.sh3f"])
    (tmp_path / "bad.npz").write_bytes(b"no pack")
    with pytest.raises(UserError, match=r"bad.npz: is no pack of furniture"):
        Furniture(tmp_path / "bad.npz")


GREY = textures.plain((0.5, 0.5, 0.5))
POSE = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 1], [0, 0, 0, 1.0]])  # at (0, 0, 1), looking along +y
K = np.array([[40.0, 0, 31.5], [0, 40, 23.5], [0, 0, 1]])


def mesh_room(*parts: Mesh, lamp=(0, 2, 2.8)) -> MeshRoom:
    shell = [block("floor", GREY, (-5, -5, -1), (5, 15, 0)), block(None, GREY, (-5, -5, 3), (5, 15, 4))]
    lamps = [Lamp(np.array(lamp), 0.05, np.ones(3))]
    return MeshRoom(shell + list(parts), np.array([5, 15, 3.0]), lamps, [], np.full(3, 0.01), 0.3, np.zeros((1, 3)))


def test_depth_and_class_of_meshes_are_exact():
    room = mesh_room(block("table", GREY, (-1, 3, 0), (1, 5, 2)))
    color, depth, classes = MeshCaster(room, Light(1.0, 4, 2), 0).render(K, POSE, (48, 64), 2)
    assert color.shape == (48, 64, 3) and color.dtype == np.uint8
    np.testing.assert_allclose(depth[20:28, 28:36], 3, rtol=1e-5)
    assert (classes[20:28, 28:36] == CLASS_NAMES.index("table")).all()
    np.testing.assert_allclose(depth[44, :8], 40 / (44 - 23.5), rtol=1e-4)  # the floor is 1 m below
    assert CLASS_NAMES[classes[44, 0]] == "floor" and classes[2, 0] == IGNORED


def test_things_cast_shadows_and_throw_light_back():
    above = np.array([[1, 0, 0, 0], [0, -1, 0, 2.0], [0, 0, -1, 2.9], [0, 0, 0, 1.0]])  # looks down at (0, 2)
    shade = block(None, GREY, (-0.6, 1.4, 1.0), (0.6, 2.6, 1.02))

    def brightness(*parts):
        caster = MeshCaster(mesh_room(*parts, lamp=(0, 2, 2.0)), Light(0.2, 32, 8), 0)
        caster.exposure = 2.0
        return caster.render(K, above, (48, 64), 1)[0].astype(float).mean(-1)

    open_, shaded = brightness(), brightness(shade)
    # beside the shade, whose shadow on the floor is 2.4 m wide, the floor is seen in its shadow
    assert 3 < shaded[24, 46] < 0.7 * open_[24, 46]
    np.testing.assert_allclose(shaded[24, 62], open_[24, 62], rtol=0.25)


def test_textures_stand_upright_at_their_scale():
    stripes = np.zeros((8, 8, 3), np.uint8)
    stripes[4:] = 255  # the upper half: row 0 is at v = 0
    wall = block("wall", Surface(stripes, (1.0, 4.0)), (-4, 3, 0), (4, 3.1, 4))
    caster = MeshCaster(mesh_room(wall), Light(0.5, 16, 8), 0)
    caster.exposure = 5.0
    color = caster.render(K, POSE, (48, 64), 1)[0][..., 0].astype(float)
    heights = 1 - (np.arange(48) - 23.5) / 40 * 3
    white = heights > 2
    inside = (heights > 0.6) & (heights < 2.9) & (np.abs(heights - 2) > 0.6)
    assert color[inside & white, 32].min() > 3 * color[inside & ~white, 32].max()


def test_leaves_have_holes_that_rays_pass():
    leaf = np.full((8, 8, 4), 255, np.uint8)
    leaf[:, 4:, 3] = 0  # the right half is open
    sheet = block("otherfurniture", Surface(leaf, (2.0, 2.0)), (-1, 2, 0), (1, 2.001, 2), fit=True)
    front = [0, 6]  # of the box, the face that the camera sees
    sheet = replace(sheet, triangles=sheet.triangles[front], uv=sheet.uv[front], normals=sheet.normals[front])
    room = mesh_room(sheet, block("wall", GREY, (-5, 4, 0), (5, 4.1, 3)))
    _, depth, classes = MeshCaster(room, Light(1.0, 4, 2), 0).render(K, POSE, (48, 64), 1)
    row = depth[20]
    assert {2.0, 4.0} == set(np.round(row[[24, 40]], 3).tolist())
    assert (classes[20][np.isclose(row, 4)] == CLASS_NAMES.index("wall")).all()


def test_subdividing_changes_no_surface():
    mesh = block("wall", GREY, (0, 0, 0), (1.0, 0.3, 2.0))
    fine = subdivided(mesh, 0.25)

    def area(triangles):
        return np.linalg.norm(np.cross(*(triangles[:, i] - triangles[:, 0] for i in (1, 2))), axis=-1).sum() / 2

    edges = np.linalg.norm(fine.triangles - np.roll(fine.triangles, -1, 1), axis=-1)
    assert edges.max() <= 0.25 and area(fine.triangles) == pytest.approx(area(mesh.triangles))
    np.testing.assert_allclose(fine.bounds(), mesh.bounds())


def test_things_rest_on_what_they_are_put_on():
    table = [
        block("table", GREY, (-0.6, 0, 0.7), (0.6, 0.8, 0.74)),
        block("table", GREY, (-0.6, 0, 0), (-0.5, 0.8, 0.7)),
    ]
    cup = [block(None, GREY, (0, 0, 0), (0.1, 0.1, 0.12))]
    for seed in range(10):
        placed = dressing.place_on(table, cup, np.random.default_rng(seed))
        low, high = extent(placed)
        assert low[2] == pytest.approx(0.741, abs=1e-6)
        assert (low[:2] > [-0.62, -0.02]).all() and (high[:2] < [0.62, 0.82]).all()
    assert dressing.place_on(cup, table, np.random.default_rng(0)) == []
    np.testing.assert_allclose(dressing.levels(table, 0.0, 0.4), [0.7, 0.74], atol=1e-9)


def test_books_stand_on_shelves_and_below_the_next():
    levels = (0.02, 0.4, 0.8, 1.2)
    shelf = [block("bookshelf", GREY, (-0.5, 0, z - 0.02), (0.5, 0.3, z)) for z in levels]
    books = dressing.with_books(shelf, np.random.default_rng(0))[len(shelf) :]
    assert len(books) > 4
    for book in books:
        low, high = book.bounds()
        floor = max(z for z in levels if z <= low[2])
        assert low[2] - floor < 0.002 and high[2] < min((z - 0.02 for z in levels if z > floor), default=9)


@pytest.mark.parametrize("seed", range(5))
def test_rooms_are_furnished_and_walks_keep_clear_and_look_at_things(furniture, seed):
    room = modelled.furnish(furniture, seed)
    poses = walks.walk(room, 60, seed)
    low, high = extent(room.parts)
    assert (low > -0.2).all() and (high < room.size + 0.2).all()
    positions = poses[:, :3, 3]
    assert (positions > 0.2).all() and (positions < room.size - 0.2).all()
    assert min(part.distance(positions).min() for part in room.parts) > 0.5 * CLEARANCE
    assert np.linalg.norm(np.diff(positions, axis=0), axis=1).max() < 0.2
    middle = room.size / 2 - positions
    assert ((middle[:, :2] * poses[:, :2, 2]).sum(1) > 0).mean() > 0.9  # across the room
    labels = {part.label for part in room.parts}
    assert {"wall", "floor", "door"} <= labels and len(labels & set(CLASS_NAMES)) >= 6


def test_the_same_seed_furnishes_the_same_room(furniture):
    first, again, other = (modelled.furnish(furniture, seed) for seed in (3, 3, 8))
    assert len(first.parts) == len(again.parts)
    for a, b in zip(first.parts, again.parts, strict=True):
        np.testing.assert_array_equal(a.triangles, b.triangles)
        np.testing.assert_array_equal(a.surface.texture, b.surface.texture)
    assert (first.size != other.size).any()


SMALL = Size({"train": 2}, 3, (24, 32), Light(1.0, 2, 1), 1)


def test_every_other_room_has_models_and_the_attribution_lies_beside(tmp_path, furniture):
    packed_ = tmp_path / "pack.npz"
    pack([write_library(tmp_path / "Mine.sh3f", {"modelRotation": TURN})], packed_)
    generate(tmp_path / "rooms", "scannet", SMALL, furniture=[packed_], mixed=True)
    assert json.loads((tmp_path / "rooms" / "scannet.json").read_text())["style"] == "modelled and plain"
    assert "Somebody" in (tmp_path / "rooms" / ATTRIBUTION).read_text()
    plain = tmp_path / "plain"
    generate(plain, "scannet", replace(SMALL, rooms={"train": 1}))
    same = (plain / "scannet" / "train_000" / "depth" / "0.png").read_bytes()
    assert (tmp_path / "rooms" / "scannet" / "train_001" / "depth" / "0.png").read_bytes() == same
    assert (tmp_path / "rooms" / "scannet" / "train_000" / "depth" / "0.png").read_bytes() != same
    with pytest.raises(UserError, match="holds modelled and plain rooms"):
        generate(tmp_path / "rooms", "scannet", SMALL, furniture=[packed_])


def test_a_sensor_is_the_same_when_frames_are_added_later(tmp_path):
    size = replace(SMALL, rooms={"train": 1})
    generate(tmp_path, "scannet", size, sensor=True)
    files = {path: path.read_bytes() for path in tmp_path.glob("scannet/train_000/*/1.*")}
    for path in files:
        path.unlink()
    generate(tmp_path, "scannet", size, sensor=True)
    assert len(files) == 4 and all(path.read_bytes() == content for path, content in files.items())
    generate(tmp_path / "exact", "scannet", size)
    for path, content in files.items():  # labels so small have no ragged borders
        assert (
            path.parent.name == "label-filt"
            or (tmp_path / "exact" / path.relative_to(tmp_path)).read_bytes() != content
        )


def test_without_embree_there_is_one_line_and_nothing_is_written(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "embreex.mesh_construction", None)
    with pytest.raises(UserError, match="pip install embreex"):
        generate(tmp_path / "rooms", "scannet", SMALL, furniture=[tmp_path / "any.npz"])
    assert not (tmp_path / "rooms").exists()


def test_of_two_surfaces_in_one_plane_the_one_that_faces_the_viewer_is_seen():
    def quad(label, flipped):
        corners = np.array([[-1, 3, 0], [1, 3, 0], [1, 3, 2], [-1, 3, 2.0]])  # faces y < 3
        triangles = np.stack([corners[[0, 1, 2]], corners[[0, 2, 3]]])
        triangles = dressing._apart(triangles[:, ::-1] if flipped else triangles)
        normals = np.tile([0, 1.0 if flipped else -1.0, 0], (2, 3, 1))
        return Mesh(triangles, np.zeros((2, 3, 2)), normals, GREY, label)

    for front in ("table", "chair"):
        room = mesh_room(*(quad(label, flipped=label != front) for label in ("table", "chair")))
        _, depth, classes = MeshCaster(room, Light(1.0, 2, 1), 0).render(K, POSE, (48, 64), 1)
        assert (classes[20:28, 28:36] == CLASS_NAMES.index(front)).all()
        np.testing.assert_allclose(depth[20:28, 28:36], 3, atol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_a_walk_makes_way_for_what_stands_in_it(seed):
    middle = block("cabinet", GREY, (2, 2, 0), (4, 4, 2))  # the room is 6 m wide: too near to most of an ellipse
    sights = np.array([[3, 0.5, 0.8], [5.5, 3, 0.8], [3, 5.5, 0.8], [0.5, 3, 0.8]])
    room = MeshRoom([middle], np.array([6, 6, 2.6]), [], [], np.zeros(3), 0.2, sights)
    assert middle.distance(walks.walk(room, 90, seed)[:, :3, 3]).min() > 0.95 * CLEARANCE


def test_walks_look_down_and_to_the_side_as_hands_do():
    sights = np.array([[3, 0.5, 0.8], [5.5, 3, 0.8], [3, 5.5, 0.8], [0.5, 3, 0.8]])
    table = block("table", GREY, (0.2, 0.2, 0), (1, 1, 0.7))
    room = MeshRoom([table], np.array([6, 6, 2.6]), [], [], np.zeros(3), 0.2, sights)
    pitches, rolls = [], []
    for seed in range(30):
        poses = walks.walk(room, 40, seed)
        assert np.allclose(poses[:, :3, :3].transpose(0, 2, 1) @ poses[:, :3, :3], np.eye(3))
        assert np.allclose(np.linalg.det(poses[:, :3, :3]), 1)
        pitches.append(-np.arcsin(poses[:, 2, 2]).mean())
        rolls.append(np.abs(np.arcsin(poses[:, 2, 0])).max())
    assert min(pitches) < 0.25 < 0.4 < max(pitches) and min(rolls) < 0.03 and 0.1 < max(rolls) <= walks.MOST_ROLL


def test_doors_floors_and_walls_come_in_any_brightness():
    rng = np.random.default_rng(0)
    doors = [fixtures.door(rng)[0].surface.texture.mean() for _ in range(60)]
    floors = [textures.carpet(rng).texture[..., :3].mean((0, 1)) for _ in range(60)]
    assert min(doors) < 40 and max(doors) > 200
    assert min(floor.mean() for floor in floors) < 70 and max(np.ptp(floor) for floor in floors) > 60


def test_no_two_rooms_have_the_same_chair_but_what_stands_in_rows_fits(tmp_path):
    items = [{"name": "Chair"}, {"name": "Lower cabinet"}]
    pack([write_library(tmp_path / "Mine.sh3f", *items)], tmp_path / "furniture.npz")
    models = Furniture(tmp_path / "furniture.npz")

    def sizes(kind):
        pieces = [
            dressing.Stock(models, np.random.default_rng(seed))._model(models.kinds[kind][0], kind)
            for seed in range(30)
        ]
        return np.array([np.subtract(*extent(piece)[::-1]) for piece in pieces])

    chairs = sizes("chair") / [0.5, 0.4, 0.9]
    assert (
        (chairs.min(0) < 0.92).all()
        and (chairs.max(0) > 1.08).all()
        and (chairs > 0.69).all()
        and (chairs < 1.41).all()
    )
    np.testing.assert_allclose(sizes("base"), np.tile([0.5, 0.4, 0.9], (30, 1)), atol=2e-3)


def test_another_shape_stands_where_the_model_stood_and_its_faces_look_outwards(thing):
    def outwards(model):
        edges = model.triangles[:, 1:] - model.triangles[:, :1]
        flat = np.cross(edges[:, 0], edges[:, 1])
        return (flat[:, None] * model.normals).sum(-1) / np.linalg.norm(flat, axis=-1, keepdims=True)

    shapes = [dressing.reshaped(thing, np.random.default_rng(seed)) for seed in range(20)]
    for shape in shapes:
        low, high = shape.triangles.min((0, 1)), shape.triangles.max((0, 1))
        np.testing.assert_allclose([low[0] + high[0], low[1], low[2]], 0, atol=1e-6)
        np.testing.assert_allclose(outwards(shape), outwards(thing), atol=1e-5)
    face = thing.skin == [skin.name for skin in thing.skins].index("face")
    sides = {float(np.sign(shape.triangles[face][(shape.uv[face] == [1, 0]).all(-1)][0, 0])) for shape in shapes}
    assert sides == {-1, 1}  # some are mirrored, their textures with them


def test_furniture_is_painted_now_and_then_but_not_its_metal():
    def brightness(name):
        skin = Skin(name, np.full(3, 0.8))
        looks = [dressing._surface(skin, "fridge", 0.9, np.random.default_rng(seed)) for seed in range(60)]
        return np.array([look.texture[..., :3].mean() for look in looks])

    assert brightness("front").min() < 60 and np.median(brightness("front")) > 190
    assert brightness("steel").min() > 150
