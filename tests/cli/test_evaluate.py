import json
import subprocess
import sys
import types
from dataclasses import dataclass

import numpy as np
import pytest
import skimage.data
from PIL import Image

from checkpoint_files import write_safetensors
from dynamicrafter.evaluation import frechet
from dynamicrafter.evaluation.cases import view
from dynamicrafter.evaluation.motion import CameraMotion
from dynamicrafter.media.video import read_metadata, write_clip
from published_files import published

LONG = ("--window", "8", "--window-stride", "4", "--model", "seeded:tiny", "--steps", "1")
SMALL = ("--device", "cpu", "--dtype", "float32", "-q")


@pytest.fixture
def moving(tmp_path):
    """A clip of a photo whose content moves right by 1 pixel a frame, and the picture that it begins with."""
    frames = np.stack(
        [view(skimage.data.astronaut(), (64, 64), CameraMotion(x=i, y=0, log_zoom=0, rotation=0)) for i in range(8)]
    )
    write_clip(tmp_path / "moving.npy", frames, fps=8, metadata={})
    Image.fromarray(frames[0]).save(tmp_path / "first.png")
    return tmp_path / "moving.npy"


def report(cli, *words):
    done = cli("evaluate", *words, "--json", "report.json", "-q")
    assert (done.code, done.err) == (0, "")
    with open("report.json", encoding="utf-8") as file:  # noqa: PTH123
        return json.load(file)


def test_a_clip_is_held_against_what_the_command_line_asks(cli, moving):
    nominal = ("--nominal", "1,0.01,0.01")
    [clip] = report(cli, moving, "--prompt", "the camera pans left", "--input", "first.png", *nominal)["clips"]
    assert (clip["expected"], clip["found"], clip["right"]) == ("pan left", "pan left", True)
    assert clip["speed"] == pytest.approx(1, abs=0.05)
    assert clip["first"]["psnr"] == 100
    [other] = report(cli, moving, "--expect", "pan right", *nominal)["clips"]
    assert (other["right"], other["speed"]) == (False, pytest.approx(-1, abs=0.05))


def test_the_table_says_what_was_found(cli, moving):
    done = cli("evaluate", moving, "--expect", "pan left", "-q")
    assert done.code == 0
    title, line = done.out.splitlines()
    assert title.split()[:5] == ["clip", "expected", "found", "right", "speed"]
    assert line.split()[:6] == [str(moving), "pan", "left", "pan", "left", "1.00"]


def test_a_clip_of_ours_says_itself_what_was_asked(cli, photo):
    made = cli("animate", photo, "zoom in on it", "--model", "seeded:tiny", "--steps", "1", "-o", "a.npy", *SMALL)
    assert made.code == 0
    [clip] = report(cli, "a.npy", "--model", "seeded:tiny", "--device", "cpu", "--dtype", "float32")["clips"]
    assert (clip["mode"], clip["prompt"], clip["expected"]) == ("animate", "zoom in on it", "zoom in")
    assert clip["first"]["psnr"] > 0
    assert clip["first"]["loss"] is not None


def test_a_clip_whose_picture_is_gone_is_measured_with_a_warning(cli, photo):
    assert cli("loop", photo, "--model", "seeded:tiny", "--steps", "1", "-o", "a.npy", *SMALL).code == 0
    photo.unlink()
    done = cli("evaluate", "a.npy", "-q", "--json", "report.json")
    assert done.code == 0
    assert done.err.startswith("warning: a.npy was made of")
    assert "closure" in done.out


def still_but_for_jumps(path, *, jumps, frames, metadata):
    """A clip that brightens by 1 a frame, and by 3 at the jumps."""
    rises = [0, *(3 if frame in jumps else 1 for frame in range(1, frames))]
    levels = np.cumsum(rises).astype(np.uint8)
    write_clip(path, np.broadcast_to(levels[:, None, None, None], (frames, 64, 64, 3)), fps=8, metadata=metadata)


def test_the_seam_of_a_long_clip_is_found_by_what_its_file_says(cli, photo):
    assert cli("animate", photo, "--frames", "19", *LONG, "-o", "a.npy", *SMALL).code == 0
    assert cli("loop", photo, "--frames", "20", *LONG, "-o", "loop.npy", *SMALL).code == 0
    assert cli("animate", photo, "--frames", "8", *LONG, "-o", "short.npy", *SMALL).code == 0
    still_but_for_jumps("a.npy", jumps=(4, 8, 11, 12, 16), frames=19, metadata=read_metadata("a.npy"))
    still_but_for_jumps("loop.npy", jumps=(4, 6, 8, 10, 12, 14, 18), frames=19, metadata=read_metadata("loop.npy"))
    long, loop, short = report(cli, "a.npy", "loop.npy", "short.npy")["clips"]
    assert (long["seam"], loop["seam"], short["seam"]) == (3, 3, None)


def test_the_seam_of_any_clip_is_found_by_the_windows_that_are_named(cli, tmp_path):
    still_but_for_jumps(tmp_path / "a.npy", jumps=(2, 4, 6), frames=8, metadata={})
    [clip] = report(cli, "a.npy", "--windows", "4,2")["clips"]
    assert clip["seam"] == 3
    [clip] = report(cli, "a.npy")["clips"]
    assert clip["seam"] is None
    done = cli("evaluate", "a.npy", "--windows", "4,5")
    assert (done.code, done.errors) == (2, ["error: window_stride must be between 1 and 4, got 5; try 4."])


def test_a_folder_stands_for_its_clips(cli, moving, tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("b.npy", "a.npy"):
        (folder / name).write_bytes(moving.read_bytes())
    (folder / "notes.txt").write_text("no clip")
    found = report(cli, "clips")
    assert [clip["name"] for clip in found["clips"]] == ["clips/a.npy", "clips/b.npy"]
    assert found["all"]["clips"] == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "clips or --suite must be given"),
        (("clip.npy", "--suite", "bundled"), "clips or --suite must be given, not both"),
        (("--suite", "bundled"), "model is missing"),
        (("--suite", "all", "--model", "seeded:tiny"), "suite must be bundled"),
        (
            ("--suite", "bundled", "--model", "seeded:tiny", "--clips", "0"),
            "clips must be between 1 and 1000000, got 0",
        ),
        (("--suite", "bundled", "--model", "seeded:tiny", "--expect", "still"), "a suite knows what it asks for"),
        (("clip.npy", "--steps", "3"), "clips, kinds, steps and save go with --suite"),
        (("clip.npy", "--expect", "sideways"), "expect must be one of still, pan left"),
        (("clip.npy", "--mode", "dance"), "mode must be one of animate"),
        (("clip.npy", "--nominal", "1,2"), "nominal must be three numbers"),
        (("clip.npy", "--nominal", "1,nan,2"), "nominal zoom must be a positive number"),
        (("clip.npy", "--windows", "16"), "windows must be two whole numbers, SIZE,STRIDE, got '16'; try 16,4"),
        (("clip.npy", "--features", "i3d.pt"), "features and reference go together"),
        (("clip.npy", "--json", "no/folder.json"), "there is no folder"),
        (("missing.npy",), "missing.npy does not exist"),
        ((".",), "holds no clips"),
    ],
)
def test_a_mistake_is_one_line(cli, words, says):
    done = cli("evaluate", *words)
    assert done.code == 2
    assert len(done.errors) == 1
    assert says in done.errors[0]


@dataclass
class Moved:
    shift_x: float = 0.0
    log_scale: float = 0.0
    rotation: float = 0.0


def test_a_model_is_examined_on_the_suite(cli, monkeypatch, tmp_path):
    fake = types.ModuleType("dynamicrafter.data.synthetic")
    fake.held_out_pictures = lambda: [("cat", skimage.data.chelsea()), ("rocket", skimage.data.rocket())]
    fake.held_out_wordings = lambda: {"pan left": ["look left"], "still": ["nothing moves"], "snow": ["it snows"]}
    fake.nominal_motion = lambda kind, motion, size: Moved(-16 / motion, 0.2 / motion, 0.2 / motion)
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    words = ("--suite", "bundled", "--model", "seeded:tiny", "--clips", "10", "--steps", "1", "--device", "cpu")
    done = cli("evaluate", *words, "--dtype", "float32", "--json", "r.json", "--save", "kept", "-q")
    assert (done.code, done.err) == (0, "")
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["summary"]["clips"] == 10
    assert set(found["groups"]) == {"pan left", "still", "snow"}
    assert {"autoencoder_psnr", "first_loss", "loop_closure", "interpolation", "peak_bytes"} <= set(found["summary"])
    assert len(list((tmp_path / "kept").glob("*.mp4"))) == 10
    assert "peak memory" in done.out


def test_a_checkpoints_own_towers_judge_similarity(cli, moving, tmp_path):
    file = write_safetensors(tmp_path / "whole.safetensors", {k: t.clone() for k, t in published("tiny512").items()})
    words = (moving, "--similarity", file, "--prompt", "a woman", "--input", "first.png", "--device", "cpu")
    [clip] = report(cli, *words)["clips"]
    assert -1 <= clip["text_similarity"] <= 1
    assert 0.5 < clip["image_similarity"] <= 1.0001


def test_towers_without_projections_are_refused_in_one_line(cli, moving, tmp_path):
    kept = {key: t.clone() for key, t in published("tiny512").items() if not key.endswith("visual.proj")}
    file = write_safetensors(tmp_path / "whole.safetensors", kept)
    done = cli("evaluate", moving, "--similarity", file, "--device", "cpu")
    assert done.code == 2
    assert "has no embedder.model.visual.proj, which CLIP similarity needs" in done.errors[0]


def test_the_distance_to_real_clips_is_told(cli, moving, tmp_path, monkeypatch):
    monkeypatch.setattr(
        frechet, "video_features", lambda model, clips, device: np.stack([c.mean((1, 2)).ravel() for c in clips])
    )
    (tmp_path / "real").mkdir()
    for name in ("a.npy", "b.npy"):
        (tmp_path / "real" / name).write_bytes(moving.read_bytes())
    found = report(cli, "real", "--features", "i3d.safetensors", "--reference", "real")
    assert found["frechet_video_distance"] == pytest.approx(0, abs=1e-6)


def test_help_needs_no_torch():
    code = (
        "import sys; from dynamicrafter.cli.main import main; main(['evaluate', '--help']); "
        "sys.exit('torch' in sys.modules or 'cv2' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "--nominal PAN,ZOOM,TURN" in done.stdout
