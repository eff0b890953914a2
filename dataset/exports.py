"""Recognition of folders of other programs and datasets, with instructions for their conversion."""

from __future__ import annotations

from pathlib import Path

WRITE = "write a transforms.json for it (docs/data.md)"
PREPARE = "give it to `python -m dataset.prepare {}`"
TUM = f"{WRITE} from the nearest depth and pose in time, with integer_depth_scale 0.0002 and poses turned to OpenGL's axes"
EXPORTS = (  # name, file patterns that must all exist, instruction
    ("a ScanNet release", ("scans/*/*.sens",), PREPARE.format("scannet")),
    ("a ScanNet recording", ("*.sens",), PREPARE.format("scannet")),
    ("a ScanNet scene", ("color", "pose", "intrinsic"), "put or link its folder below data/scannet"),
    (
        "ScanNet++",
        ("dslr/nerfstudio",),
        "put dslr/nerfstudio/transforms.json beside the images and masks that it names",
    ),
    (
        "ScanNet++",
        ("nerfstudio", "resized_images"),
        "put nerfstudio/transforms.json beside the images and masks that it names",
    ),
    ("ScanNet++'s phone", ("pose_intrinsic_imu.json",), f"extract its frames, and {WRITE}"),
    ("Replica of Semantic-NeRF", ("Sequence_*/traj_w_c.txt",), PREPARE.format("replica")),
    ("Replica of vMAP", ("imap/*/traj_w_c.txt",), PREPARE.format("replica")),
    ("Replica of NICE-SLAM", ("results/frame*", "traj.txt"), PREPARE.format("replica")),
    ("a Replica mesh", ("habitat/mesh_semantic.ply",), "get its renderings (docs/data.md)"),
    ("a capture", ("transforms*.json",), PREPARE.format("transforms")),
    ("ICL-NUIM", ("*.gt.freiburg",), TUM),
    ("TUM RGB-D or a relative", ("rgb.txt", "depth.txt"), TUM),
    ("TUM RGB-D or a relative", ("rgb", "depth", "groundtruth.txt"), TUM),
    (
        "ARKitScenes",
        ("lowres_wide", "*.traj"),
        f"{WRITE} from the inverse of lowres_wide.traj's poses, turned to OpenGL's axes",
    ),
    (
        "7-Scenes",
        ("frame-*.color.*", "frame-*.pose.txt"),
        f"{WRITE}, with the depth camera as depth_fl_x, … and poses turned to OpenGL's axes",
    ),
    ("Polycam's raw export", ("keyframes/cameras",), "convert it by `ns-process-data polycam` of nerfstudio"),
    ("Record3D's export", ("EXR_RGBD",), "convert it by `ns-process-data record3d` of nerfstudio"),
    (
        "COLMAP's model",
        ("sparse/*/cameras.*",),
        "convert it by colmap2nerf.py of instant-ngp, or ns-process-data of nerfstudio",
    ),
    (
        "COLMAP's model",
        ("cameras.*", "points3D.*"),
        "convert it by colmap2nerf.py of instant-ngp, or ns-process-data of nerfstudio",
    ),
    ("Metashape's project or export", ("cameras.xml",), "convert it by `ns-process-data metashape` of nerfstudio"),
    (
        "RealityCapture's export",
        ("internal_external.csv",),
        "convert it by `ns-process-data realitycapture` of nerfstudio",
    ),
    ("Stray Scanner's recording", ("odometry.csv", "camera_matrix.csv"), f"extract the frames of rgb.mp4, and {WRITE}"),
    ("Hypersim", ("_detail", "images/scene_cam_*"), f"{WRITE}, with z-depth made of its distances"),
    ("Redwood or Open3D", ("depth", "*.log"), f"{WRITE}, with the poses of its .log turned to OpenGL's axes"),
    ("a packed capture", ("*.zip",), "unpack it"),
    ("LLFF", ("poses_bounds.npy",), "convert its COLMAP model by colmap2nerf.py of instant-ngp"),
)


def seems_to_be(folder: Path) -> str:
    """Return the end of an error message that names the format of a folder, or of one in it, and what to do; "" if
    unknown."""
    if not folder.is_dir():
        return ""
    for place in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        for name, marks, remedy in EXPORTS:
            if all(any(place.glob(mark)) for mark in marks):
                return f"; {'it' if place == folder else place} seems to be {name}: {remedy}"
    return ""
