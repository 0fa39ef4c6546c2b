import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from checkpoint_files import write_safetensors
from dynamicrafter.checkpoints.seeded import seeded_weight
from dynamicrafter.errors import CheckpointError, InputError
from dynamicrafter.evaluation import i3d
from dynamicrafter.evaluation.frechet import frechet_distance, frechet_video_distance, video_features
from dynamicrafter.evaluation.i3d import I3D, load_i3d, pad_same


def with_moments(mean, covariance, *, count, rng):
    """Features whose sample mean and covariance are exactly these."""
    raw = rng.normal(size=(count, len(mean)))
    raw -= raw.mean(axis=0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(np.cov(raw, rowvar=False)).T)
    return white @ np.linalg.cholesky(covariance).T + mean


def test_the_distance_of_known_normals_is_its_closed_form():
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(2, 5, 5))
    means, covariances = rng.normal(size=(2, 5)), roots @ roots.swapaxes(1, 2) + np.eye(5)
    one, other = (with_moments(m, c, count=40, rng=rng) for m, c in zip(means, covariances, strict=True))
    expected = np.sum((means[0] - means[1]) ** 2) + np.trace(
        covariances[0] + covariances[1] - 2 * sqrtm(covariances[0] @ covariances[1]).real
    )
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-9)


def test_diagonal_normals_need_no_matrix_root():
    rng = np.random.default_rng(1)
    one = with_moments(np.zeros(3), np.diag([1.0, 4.0, 9.0]), count=20, rng=rng)
    other = with_moments(np.array([1.0, 0, 2.0]), np.diag([4.0, 4.0, 1.0]), count=30, rng=rng)
    assert frechet_distance(one, other) == pytest.approx(1 + 4 + (2 - 1) ** 2 + 0 + (1 - 3) ** 2, rel=1e-9)


def test_fewer_clips_than_features_still_give_a_distance():
    rng = np.random.default_rng(2)
    few = rng.normal(size=(6, 50))
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(few, few + 1) == pytest.approx(50)
    assert frechet_distance(few, 2 * few) == pytest.approx(np.sum(few.mean(axis=0) ** 2) + np.trace(np.cov(few.T)))


def test_it_is_symmetric():
    rng = np.random.default_rng(3)
    one, other = rng.normal(size=(9, 4)), rng.normal(size=(7, 4)) * 2 + 1
    assert frechet_distance(one, other) == pytest.approx(frechet_distance(other, one))


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (np.ones((1, 4)), "at least 2 rows"),
        (np.ones((3, 5)), "as wide as"),
        (np.full((3, 4), np.nan), "finite features"),
    ],
)
def test_features_that_fit_no_normal_are_refused(other, says):
    with pytest.raises(InputError, match=says):
        frechet_distance(np.ones((3, 4)), other)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """I3D's layout with weights drawn from their names."""
    tensors = {
        name: seeded_weight(name, tuple(tensor.shape)).abs() if name.endswith("var") else
        torch.tensor(0) if name.endswith("tracked") else seeded_weight(name, tuple(tensor.shape))
        for name, tensor in I3D().state_dict().items()
    }  # fmt: skip
    return write_safetensors(tmp_path_factory.mktemp("i3d") / "i3d.safetensors", tensors)


def test_the_network_is_the_published_one_in_names_and_size(weights):
    network = load_i3d(weights)
    assert sum(parameter.numel() for parameter in network.parameters()) == 12_697_264
    state = network.state_dict()
    assert state["Conv3d_1a_7x7.conv3d.weight"].shape == (64, 3, 7, 7, 7)
    assert state["Mixed_4f.b1b.conv3d.weight"].shape == (320, 160, 3, 3, 3)
    assert state["Mixed_5c.b3b.bn.running_mean"].shape == (128,)
    assert state["logits.conv3d.weight"].shape == (400, 1024, 1, 1, 1)
    assert {module.eps for module in network.modules() if isinstance(module, torch.nn.BatchNorm3d)} == {0.001}
    assert not network.training


@pytest.mark.parametrize(("length", "kernel", "stride"), [(16, 7, 2), (15, 3, 2), (9, 3, 1), (8, 2, 2), (7, 1, 1)])
def test_padding_keeps_every_window_that_starts_inside(length, kernel, stride):
    padded = pad_same(torch.ones(1, 1, length, 1, 1), (kernel, 1, 1), (stride, 1, 1))
    windows = padded.unfold(2, kernel, stride)
    assert windows.shape[2] == -(-length // stride)
    lacking = padded.shape[2] - length
    before = int((padded.flatten() == 0).int().cumprod(0).sum())
    assert before == lacking // 2


def test_features_tell_clips_apart_and_only_their_pixels_count(weights, monkeypatch):
    monkeypatch.setattr(i3d, "SIZE", 32)
    rng = np.random.default_rng(0)
    clips = rng.integers(0, 256, (4, 9, 24, 40, 3)).astype(np.uint8)
    features = video_features(weights, clips)
    assert features.shape == (4, 400)
    assert np.allclose(features[1], video_features(weights, [clips[1]])[0], atol=1e-5)
    assert not np.allclose(features[0], features[1], atol=1e-4)
    apart = frechet_video_distance(weights, clips[:2], clips[2:])
    assert apart > 0
    # Random weights answer with huge features, whose rounding differs from processor to processor.
    assert frechet_video_distance(weights, clips[:2], clips[:2]) == pytest.approx(0, abs=1e-9 * apart)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_program_is_refused_unread(tmp_path):
    path = tmp_path / "i3d.pt"
    torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(path)
    with pytest.raises(CheckpointError):
        load_i3d(path)


def test_another_networks_weights_are_refused_by_name(tmp_path):
    path = write_safetensors(tmp_path / "other.safetensors", {"weight": torch.ones(2)})
    with pytest.raises(CheckpointError, match="holds no I3D"):
        load_i3d(path)


def test_clips_that_cannot_be_compared_are_refused(weights):
    clips = np.zeros((2, 9, 32, 32, 3), np.uint8)
    with pytest.raises(InputError, match="one length, got 8, 9 frames"):
        frechet_video_distance(weights, list(clips), [clips[0][:8]])
    with pytest.raises(InputError, match="at least 9 frame"):
        video_features(weights, [clips[0][:8]])
    with pytest.raises(InputError, match="at least one clip"):
        video_features(weights, [])
