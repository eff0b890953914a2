"""The interactive viewer, a page in the browser. Each client has a camera and controls of its own."""

from __future__ import annotations

import errno
import html
import json
import socket
import threading
import time
from dataclasses import dataclass, field

import cv2
import numpy as np

from dataset.camera import field_of_view
from dataset.scene import to_cameras
from dataset.view_selection import evenly
from dataset.views import Cameras
from train.pictures import Picture, to_picture
from utils.errors import UserError
from utils.logging import say, warn
from viewing.paths import CameraPath, intrinsics, parse_path, up_of
from viewing.references import References
from viewing.session import Session
from viewing.shades import COLOR, describe, modes, paint

try:
    import viser
    from scipy.spatial.transform import Rotation
except ImportError:
    viser = None

MOST_FRUSTA, THUMBNAIL = 60, 64  # cameras that are drawn, and the width of their pictures
COARSENESS = (
    8,
    4,
    2,
    1,
)  # reductions of resolution at which a view is rendered, one after the other while the camera is still
QUICK = 0.15  # seconds that a picture may take while the camera moves
STILL = 0.25  # seconds without motion after which a finer picture is rendered
SMALLEST_HEIGHT = 12
LARGEST_ASPECT = 3
PLAY_RATE = 12  # poses a second of a path that is played


def serve(session: Session, host: str, port: int, width: int | None) -> None:
    """Serve the page until Ctrl-C. width: of the picture at full resolution, None for the scene's own.

    Raise UserError without viser, or if the port is in use.
    """
    if viser is None:
        raise UserError("the viewer needs viser: pip install viser")
    _require_port(host, port)
    viewer = Viewer(session, viser.ViserServer(host, port, label=session.renderer.network.title, verbose=False), width)
    say(f"open http://{'localhost' if host in ('127.0.0.1', '0.0.0.0') else host}:{port} (Ctrl-C ends it)")
    try:
        viewer.run()
    finally:
        viewer.server.stop()


def _require_port(host: str, port: int) -> None:
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OverflowError:
        raise UserError(f"--port {port}: ports end at 65535") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} is in use; give another one with --port") from None
        raise UserError(f"cannot listen at {host}, port {port}: {error.strerror}") from None


@dataclass
class Guest:
    """One open page: its client, the state of its rendering, the last picture, and its controls."""

    client: viser.ClientHandle
    moved: float = 0.0  # time of the last motion of its camera
    level: int = 0  # index of the next COARSENESS to be rendered; len(COARSENESS) after the last one
    references: tuple[str, ...] = ()
    picture: Picture | None = None
    controls: dict = field(default_factory=dict)
    path: CameraPath | None = None
    playing: bool = False


class Viewer:
    """Renders for all guests in turn, one picture at a time, in the thread that calls `run`."""

    def __init__(self, session: Session, server: viser.ViserServer, width: int | None):
        self.session, self.server = session, server
        self.references = References(session.scene, session.references)
        height = session.scene.size[0]
        self.height = height if width is None else max(SMALLEST_HEIGHT, round(width * height / session.scene.size[1]))
        self.guests: dict[int, Guest] = {}
        self.rate = 20000.0  # rays a second, as measured
        self._wake = threading.Event()
        self._draw_cameras()
        server.on_client_connect(self._welcome)
        server.on_client_disconnect(lambda client: self.guests.pop(client.client_id, None))

    def run(self) -> None:
        while True:
            self._wake.wait(0.05)
            self._wake.clear()
            for guest in list(self.guests.values()):
                self._serve(guest)

    def _serve(self, guest: Guest) -> None:
        """Render the next picture that a guest waits for, if any. An error is shown to that guest; the server goes
        on."""
        level = self._next_level(guest)
        if level is None:
            return
        guest.level = level + 1
        moved = guest.moved
        try:
            camera = self._camera(guest, COARSENESS[level])
            guest.references = self.references.choose(camera, guest.references)
            begin = time.perf_counter()
            view = self.session.render(camera, [(1.0, guest.references)])
            picture = to_picture(view, camera.size, probabilities=True)
            self.rate = 0.5 * self.rate + 0.5 * len(view.depth) / (time.perf_counter() - begin)
            guest.picture = picture
            self._show(guest)
        except Exception as error:
            if guest.client.client_id in self.guests:  # otherwise the page was closed meanwhile: not an error
                guest.controls["place"].content = html.escape(str(error))
                warn(f"a picture could not be rendered: {error}")
        if guest.moved == moved and guest.level < len(COARSENESS):
            self._wake.set()

    def _next_level(self, guest: Guest) -> int | None:
        """Return the index of the COARSENESS to render now: the finest that is quick enough while the camera moves,
        then the next finer one; None if there is nothing to render."""
        if guest.level >= len(COARSENESS) or not guest.controls:
            return None
        if guest.level == 0:
            rays = [self.height**2 * guest.client.camera.aspect / c**2 for c in COARSENESS]
            return max([0] + [i for i, r in enumerate(rays) if r < QUICK * self.rate])
        return guest.level if time.monotonic() - guest.moved > STILL else None

    def _camera(self, guest: Guest, coarseness: int) -> Cameras:
        camera = guest.client.camera
        aspect = float(np.clip(camera.aspect, 1 / LARGEST_ASPECT, LARGEST_ASPECT))
        height = max(SMALLEST_HEIGHT, self.height // coarseness)
        size = height, max(SMALLEST_HEIGHT, round(height * aspect))
        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_quat(np.roll(camera.wxyz, -1)).as_matrix()
        pose[:3, 3] = camera.position
        return to_cameras(pose[None], intrinsics(camera.fov, size)[None], self.session.scene.depth_range, size)

    def _show(self, guest: Guest) -> None:
        if guest.picture is not None:
            guest.client.scene.set_background_image(self._picture(guest), format="jpeg", jpeg_quality=85)

    def _picture(self, guest: Guest) -> np.ndarray:
        controls, classes = guest.controls, self.session.classes
        hidden = frozenset(i for i, box in enumerate(controls["shown"]) if not box.value)
        opacity = controls["opacity"].value if classes else 0.0
        return paint(guest.picture, controls["mode"].value, classes, opacity, hidden)

    def _draw_cameras(self) -> None:
        """Draw the references as frusta with thumbnails; a click moves the camera to one."""
        scene = self.session.scene
        self.server.scene.set_up_direction(tuple(up_of(scene.camera_to_world)))
        for frame in evenly(self.references.pool, MOST_FRUSTA):
            views = scene.views([frame])
            image = views.images[0].permute(1, 2, 0).numpy()
            height, width = views.cameras.size
            image = cv2.resize(image, (THUMBNAIL, round(THUMBNAIL * height / width)), interpolation=cv2.INTER_AREA)
            pose = scene.camera_to_world[scene.frame_ids.index(frame)]
            view = field_of_view(float(views.cameras.Ks[0, 1, 1]), height)
            frustum = self.server.scene.add_camera_frustum(
                f"/cameras/{frame}", view, width / height, scale=0.06, image=image, format="jpeg",
                wxyz=_wxyz(pose), position=pose[:3, 3],
            )  # fmt: skip
            frustum.on_click(lambda event, pose=pose: _go(event.client, pose))

    def _welcome(self, client: viser.ClientHandle) -> None:
        scene = self.session.scene
        guest = Guest(client, moved=time.monotonic())
        start = scene.frame_ids.index((scene.split().tests or scene.frame_ids)[0])
        client.camera.fov = field_of_view(scene.Ks[start, 1, 1], scene.raw_size[0])
        _go(client, scene.camera_to_world[start])
        self._add_controls(guest)

        @client.camera.on_update
        def _(_) -> None:
            self._refresh(guest)

        @client.scene.on_click()
        def _(event) -> None:
            if guest.picture is not None:
                guest.controls["place"].content = describe(guest.picture, *event.screen_pos, self.session.classes)

        self.guests[client.client_id] = guest
        self._refresh(guest)

    def _refresh(self, guest: Guest) -> None:
        guest.moved, guest.level = time.monotonic(), 0
        self._wake.set()

    def _add_controls(self, guest: Guest) -> None:
        gui, classes = guest.client.gui, self.session.classes
        controls: dict = {"mode": gui.add_dropdown("show", modes(classes), initial_value=COLOR), "shown": []}
        if classes is not None:
            controls["opacity"] = gui.add_slider("opacity of classes", 0.0, 1.0, 0.05, 0.5)
        gui.add_markdown("Click on the picture to ask what is there.")
        controls["place"] = gui.add_markdown("")
        cameras = gui.add_checkbox("cameras", False, hint="where the references were taken; click on one to go there")
        cameras.on_update(lambda _: guest.client.scene.set_global_visibility(cameras.value))
        guest.client.scene.set_global_visibility(False)  # frusta around the camera would hide the picture
        gui.add_button("save picture").on_click(lambda _: self._save(guest))
        with gui.add_folder("camera path"):
            upload = gui.add_upload_button("load (JSON)", mime_type="application/json")
            upload.on_upload(lambda _: self._load_path(guest, upload.value))
            gui.add_button("play / stop").on_click(lambda _: self._play(guest))
        if classes is not None:
            with gui.add_folder("classes"):
                gui.add_html(_legend(classes.names[:-1], classes.colors))
                controls["shown"] = [gui.add_checkbox(name, True) for name in classes.names[:-1]]
        watched = [controls["mode"], *controls["shown"], *([controls["opacity"]] if classes else [])]
        for handle in watched:
            handle.on_update(lambda _: self._show(guest))
        guest.controls = controls

    def _save(self, guest: Guest) -> None:
        if guest.picture is not None:
            encoded = cv2.imencode(".png", self._picture(guest)[..., ::-1])[1].tobytes()
            guest.client.send_file_download("view.png", encoded, save_immediately=True)

    def _load_path(self, guest: Guest, file) -> None:
        try:
            guest.path = parse_path(json.loads(file.content), file.name)
            guest.controls["place"].content = f"{file.name}: {len(guest.path)} cameras"
        except (UserError, ValueError) as error:
            guest.controls["place"].content = html.escape(str(error) or "not JSON")

    def _play(self, guest: Guest) -> None:
        """Move the camera along the loaded path, until its end or the next click."""
        if guest.playing or guest.path is None:
            guest.playing = False
            if guest.path is None:
                guest.controls["place"].content = "load a path first"
            return
        guest.playing = True
        for pose, view in zip(guest.path.camera_to_world, guest.path.field_of_view, strict=True):
            if not guest.playing or guest.client.client_id not in self.guests:
                break
            guest.client.camera.fov = float(view)
            _go(guest.client, pose)
            self._refresh(guest)
            time.sleep(1 / PLAY_RATE)
        guest.playing = False


def _go(client: viser.ClientHandle, pose: np.ndarray) -> None:
    with client.atomic():
        client.camera.wxyz = _wxyz(pose)
        client.camera.position = pose[:3, 3]


def _wxyz(pose: np.ndarray) -> np.ndarray:
    return np.roll(Rotation.from_matrix(pose[:3, :3]).as_quat(), 1)


def _legend(names: tuple[str, ...], colors: np.ndarray) -> str:
    patches = [
        f'<span style="display:inline-block;white-space:nowrap;margin:0 .6em .2em 0"><span style="display:inline-block;'
        f'width:.9em;height:.9em;background:rgb({r},{g},{b})"></span> {html.escape(name)}</span>'
        for name, (r, g, b) in zip(names, colors[:-1].tolist(), strict=True)
    ]
    return f'<div style="padding:0 1em;font-size:.75em">{" ".join(patches)}</div>'
