"""The page in the browser: its logic with guests that are made up, and the page itself in a real Chromium."""

import shutil
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dataset.database import open_scene
from dataset.render_dataset import Needs
from network.view_renderer import ViewRenderer
from train.run import build_network
from utils.errors import UserError
from viewing.session import Classes, Session
from viewing.shades import COLOR, paint

pytest.importorskip("viser", reason="needs viser")
from viewing import viewer as page

CPU = torch.device("cpu")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
START_LIMIT = 60  # seconds, on a slow machine


class Control:
    """A control or place of the page that remembers its value and who watches it."""

    def __init__(self, value=None):
        self.value, self.content, self.watchers = value, "", []

    def on_update(self, watcher):
        self.watchers.append(watcher)
        return watcher

    on_click = on_upload = on_update

    def set(self, value):
        self.value = value
        for watcher in self.watchers:
            watcher(None)


class Gui:
    def __getattr__(self, name):
        defaults = {"add_dropdown": lambda *a, initial_value: Control(initial_value),
                    "add_slider": lambda *a: Control(a[-1]), "add_checkbox": lambda *a, **k: Control(a[-1])}  # fmt: skip
        return defaults.get(name, lambda *a, **k: Control())

    def add_folder(self, name):
        import contextlib

        return contextlib.nullcontext()


class Camera(SimpleNamespace):
    def on_update(self, watcher):
        self.moved = watcher


class Client:
    """As much of a viser client as the viewer touches."""

    def __init__(self, number, aspect=1.0):
        import contextlib

        self.client_id, self.gui, self.pictures, self.files = number, Gui(), [], []
        self.camera = Camera(wxyz=np.array([1.0, 0, 0, 0]), position=np.zeros(3), fov=1.0, aspect=aspect)
        self.scene = SimpleNamespace(
            set_background_image=lambda image, **_: self.pictures.append(image),
            on_click=lambda: lambda watcher: setattr(self, "clicked", watcher),
            set_global_visibility=lambda shown: None,
        )
        self.atomic = contextlib.nullcontext
        self.send_file_download = lambda name, content, **_: self.files.append((name, content))


@pytest.fixture
def viewer(config, rooms):
    scene = open_scene("scannet/test_000/black_64", rooms)
    network = build_network(config(ray_mask_point_num=2), CPU)
    classes = Classes((*scene.labels.names, "invalid"), scene.labels.colors)
    session = Session(ViewRenderer(network), scene, Needs(depth=True), 3, classes)
    frustum = SimpleNamespace(on_click=lambda watcher: None)
    server = SimpleNamespace(
        scene=SimpleNamespace(set_up_direction=lambda up: None, add_camera_frustum=lambda *a, **k: frustum),
        on_client_connect=lambda f: None,
        on_client_disconnect=lambda f: None,
    )
    return page.Viewer(session, server, None)


def enter(viewer, number=0):
    client = Client(number)
    viewer._welcome(client)
    return client, viewer.guests[number]


def test_a_view_gets_finer_while_nobody_moves(viewer):
    client, guest = enter(viewer)
    viewer.rate = 1  # so slow that only the coarsest is quick
    viewer._serve(guest)
    viewer._serve(guest)
    assert len(client.pictures) == 1, "it waits whether the camera moves on"
    guest.moved -= 1
    for _ in range(5):
        viewer._serve(guest)
    heights = [picture.shape[0] for picture in client.pictures]
    assert heights == [12, 12, 24, 48]
    client.camera.moved(None)
    viewer.rate = 1e9
    viewer._serve(guest)
    assert len(client.pictures) == 5 and client.pictures[-1].shape[0] == 48, "a fast device shows the finest at once"


def test_switching_modes_changes_the_picture_without_rendering(viewer, monkeypatch):
    client, guest = enter(viewer)
    viewer._serve(guest)
    monkeypatch.setattr(Session, "render", None)
    guest.picture.probabilities[..., -1] = 0  # what is "invalid" is never shown
    for mode in ("classes", "depth", "entropy", "overlay"):
        guest.controls["mode"].set(mode)
        assert not np.array_equal(client.pictures[-1], client.pictures[-2]), mode
    before = client.pictures[-1]
    for box in guest.controls["shown"]:
        box.set(False)
    assert np.array_equal(client.pictures[-1], paint(guest.picture, COLOR, None)) and not np.array_equal(
        before, client.pictures[-1]
    )


def test_asking_saving_and_paths(viewer):
    client, guest = enter(viewer)
    viewer._play(guest)
    assert "load a path first" in guest.controls["place"].content
    viewer._serve(guest)
    client.clicked(SimpleNamespace(screen_pos=(0.5, 0.5)))
    assert "away" in guest.controls["place"].content or "no reference" in guest.controls["place"].content
    viewer._save(guest)
    assert client.files[0][0] == "view.png" and client.files[0][1].startswith(b"\x89PNG")
    for content in (b"{", b"[]", b'{"camera_path": [1]}'):
        viewer._load_path(guest, SimpleNamespace(name="a.json", content=content))
        assert guest.path is None and guest.controls["place"].content
    entry = b'{"camera_to_world": [1,0,0,5, 0,1,0,0, 0,0,1,0, 0,0,0,1], "fov": 50}'
    viewer._load_path(guest, SimpleNamespace(name="a.json", content=b'{"camera_path": [' + entry + b"]}"))
    viewer._play(guest)
    assert client.camera.position.tolist() == [5, 0, 0]


def test_ten_guests_and_one_that_leaves(viewer):
    entered = [enter(viewer, number) for number in range(10)]
    for guest in viewer.guests.values():
        viewer._serve(guest)
    assert all(client.pictures for client, _ in entered)
    client, guest = entered[3]
    del viewer.guests[3]
    client.scene.set_background_image = lambda *a, **k: (_ for _ in ()).throw(RuntimeError("closed"))
    guest.level = 0
    viewer._serve(guest)


def test_a_port_that_is_taken(viewer):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match=f"port {taken.getsockname()[1]} is in use"):
            page._require_port("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(UserError, match="ports end at 65535"):
        page._require_port("127.0.0.1", 70000)
    with pytest.raises(UserError, match="cannot listen"):
        page._require_port("203.0.113.7", 8080)


@pytest.fixture
def served(rooms, tmp_path, config):
    """The page of the command itself, in a process of its own."""
    torch.save({"network_state_dict": build_network(config(), CPU).state_dict()}, tmp_path / "model.pth")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "run_rendering.py", "viewer", "--cfg", "configs/cra/test_cra_synthetic.yaml", "--model-path",
        str(tmp_path / "model.pth"), "--scene", "scannet/test_000/black_64", "--port", str(port), f"data_root={rooms}",
        "cache=false", "device=cpu", "depth_sample_num=8", "fine_depth_sample_num=8", "train_dataset_cfg.min_wn=3",
        "train_dataset_cfg.max_wn=4", f"output_root={tmp_path}",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if f"open http://localhost:{port}" in line:
            break
    else:
        pytest.fail("".join(lines))
    yield f"http://localhost:{port}"
    assert process.poll() is None, "it ended by itself: " + process.stdout.read()
    process.send_signal(2)
    process.wait(20)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_page_in_a_browser(served):
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--enable-unsafe-swiftshader", "--disable-background-networking",
                  "--disable-component-update", "--disable-sync", "--no-first-run"],
        )  # fmt: skip

        def open_page():
            tab = browser.new_page(viewport={"width": 640, "height": 480})
            tab.goto(served)
            tab.get_by_text("Click on the picture").wait_for(timeout=START_LIMIT * 1000)
            return tab

        def picture(tab):
            """Return the picture on the canvas, left of the controls."""
            return tab.screenshot(clip={"x": 10, "y": 100, "width": 300, "height": 300})

        def still_picture(tab):
            """Return the picture once eight looks in a row, half a second apart, show the same."""
            looks = []

            def still():
                looks.append(picture(tab))
                return len(looks) >= 8 and len(set(looks[-8:])) == 1

            wait_until(still, "the picture becomes still")
            return looks[-1]

        def wait_until(condition, what):
            end = time.monotonic() + START_LIMIT
            while not condition():
                assert time.monotonic() < end, what
                time.sleep(0.5)

        tab = open_page()
        empty = picture(tab)
        wait_until(lambda: picture(tab) != empty, "a render arrives")
        in_colour = still_picture(tab)  # as fine as it gets
        tab.locator("input[value=colour]").first.click()
        tab.get_by_role("option", name="depth").click()
        wait_until(lambda: picture(tab) != in_colour, "switching modes changes the picture")
        tab.close()
        again = open_page()
        wait_until(lambda: picture(again) != empty, "coming back works")
        crowd = [open_page() for _ in range(9)]
        wait_until(lambda: picture(crowd[-1]) != empty, "the tenth page has its picture")
        for tab in crowd:
            tab.close()
        before = picture(again)
        again.mouse.move(150, 300)
        again.mouse.down()
        again.mouse.move(220, 300, steps=5)
        again.mouse.up()
        wait_until(lambda: picture(again) != before, "the first one still follows its camera")
        browser.close()
