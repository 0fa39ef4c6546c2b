"""Windows over time: where they lie, how they are weighed, and attention through them."""

from itertools import pairwise

import pytest
import torch

from dynamicrafter.errors import InputError
from dynamicrafter.memory.counting import count_call
from dynamicrafter.models import attention
from dynamicrafter.models.attention import TimeSelfAttention
from dynamicrafter.models.windows import TimeWindows, attend_in_windows, windows_on
from tiny import network

LAYOUTS = [(16, 4, 23), (16, 4, 48), (16, 16, 40), (16, 1, 19), (8, 3, 21), (5, 2, 512), (4, 4, 9)]


def attend(query, key, value):
    """Attention as its formula, one head and one pixel at a time."""
    answer = torch.zeros_like(query)
    for n in range(query.shape[0]):
        for h in range(query.shape[2]):
            q, k, v = query[n, :, h], key[n, :, h], value[n, :, h]
            answer[n, :, h] = torch.softmax(q @ k.T / q.shape[-1] ** 0.5, dim=-1) @ v
    return answer


def brute_force(query, key, value, *, size, stride, ends=False):
    """For every frame, over all windows that hold it, the mean of its attention in each, by the hat's weights."""
    frames, own = query.shape[1], size - 2 * ends
    starts = sorted({*range(0, frames - own, stride), frames - own})
    answer = torch.zeros_like(query)
    for frame in range(frames):
        total = 0.0
        for start in starts:
            place = frame - start
            if not 0 <= place < own:
                continue
            seen = sorted({*range(start, start + own), *((0, frames - 1) if ends else ())})
            weight = min(place + 0.5, own - place - 0.5)
            part = attend(query[:, frame : frame + 1], key[:, seen], value[:, seen])
            answer[:, frame : frame + 1] += weight * part
            total += weight
        answer[:, frame] /= total
    return answer


@pytest.mark.parametrize(("size", "stride", "frames"), LAYOUTS)
def test_windows_cover_every_frame_weigh_one_together_and_end_on_the_last(size, stride, frames):
    windows = TimeWindows(size, stride).over(frames)
    total = torch.zeros(frames)
    for window in windows:
        assert window.stop - window.start == size
        assert window.seen == tuple(range(window.start, window.stop))
        total[window.start : window.stop] += window.weights
    assert torch.allclose(total, torch.ones(frames))
    assert (windows[0].start, windows[-1].stop) == (0, frames)
    steps = [after.start - before.start for before, after in pairwise(windows)]
    assert set(steps[:-1]) <= {stride}
    assert 0 < steps[-1] <= stride


def test_weights_fall_off_evenly_to_the_edges():
    windows = TimeWindows(16, 4).over(48)
    assert [window.start for window in windows] == [0, 4, 8, 12, 16, 20, 24, 28, 32]
    of_frame_12 = [window.weights[12 - window.start].item() * 16 for window in windows[:4]]
    assert of_frame_12 == pytest.approx([3.5, 7.5, 4.5, 0.5])


@pytest.mark.parametrize("frame", range(12, 36))
def test_the_mean_place_of_a_frame_in_its_windows_stays_in_their_middle(frame):
    windows = [window for window in TimeWindows(16, 4).over(48) if window.start <= frame < window.stop]
    places = [(frame - window.start) * window.weights[frame - window.start].item() for window in windows]
    assert sum(places) == pytest.approx(7.5)


def test_the_last_window_ends_on_the_last_frame_where_the_stride_does_not():
    assert [window.start for window in TimeWindows(16, 4).over(23)] == [0, 4, 7]
    assert TimeWindows(16, 4).borders(23) == (4, 7, 16, 20)


def test_a_window_between_two_pictures_sees_both_and_no_more_than_its_size():
    windows = TimeWindows(16, 4, anchors=(0, 47)).over(48)
    assert [(window.start, window.stop) for window in windows] == [(at, at + 14) for at in (*range(0, 34, 4), 34)]
    for window in windows:
        assert window.seen == tuple(sorted({0, *range(window.start, window.stop), 47}))
        assert len(window.seen) <= 16


def test_of_several_pictures_a_window_sees_the_nearest_on_either_side():
    windows = TimeWindows(8, 4, anchors=(0, 20, 30, 59)).over(60)
    assert [window.seen for window in windows if window.start == 24] == [(20, *range(24, 30), 30)]
    assert [window.seen for window in windows if window.start == 32] == [(30, *range(32, 38), 59)]


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize(("size", "stride", "frames"), [(8, 3, 21), (6, 4, 15), (5, 1, 9)])
def test_attention_in_windows_is_the_weighed_mean_over_all_windows_of_a_frame(size, stride, frames, ends):
    random = torch.Generator().manual_seed(frames)
    query, key, value = (torch.randn(2, frames, 2, 3, generator=random, dtype=torch.float64) for _ in range(3))
    layout = TimeWindows(size, stride, anchors=(0, frames - 1) if ends else ())
    got = attend_in_windows(attention.attend, query, key, value, windows_on(layout, frames, query.device, query.dtype))
    torch.testing.assert_close(got, brute_force(query, key, value, size=size, stride=stride, ends=ends))


def test_windows_are_blended_before_the_output_projection():
    layer = TimeSelfAttention(8, num_heads=2)
    torch.nn.init.normal_(layer.to_out.bias)
    projected = []
    layer.to_out.register_forward_hook(lambda _module, inputs, _output: projected.append(inputs[0]))
    tokens = torch.randn(1, 20, 3, 8, generator=torch.Generator().manual_seed(0))
    windows = TimeWindows(8, 4).over(20)
    with torch.no_grad():
        layer(tokens, windows)
        query, key, value = (
            p(tokens).transpose(1, 2)[0].unflatten(-1, (2, 4)) for p in (layer.to_q, layer.to_k, layer.to_v)
        )
    [blended] = projected
    want = brute_force(query, key, value, size=8, stride=4)
    torch.testing.assert_close(blended[0].transpose(0, 1), want.flatten(-2), atol=1e-5, rtol=1e-4)


def inputs(frames, unet, *, batch=1):
    random = torch.Generator().manual_seed(frames)
    width = unet.config["cross_attention_dim"]
    return {
        "sample": torch.randn(batch, 8, frames, 4, 4, generator=random),
        "timestep": torch.full((batch,), 500),
        "text_context": torch.randn(batch, 77, width, generator=random),
        "image_context": torch.randn(batch, frames, 16, width, generator=random),
    }


@torch.no_grad()
@pytest.mark.parametrize("frames", [5, 16])
def test_a_clip_no_longer_than_a_window_keeps_its_bits(frames):
    unet = network("unet", "tiny512")
    given = inputs(frames, unet)
    assert torch.equal(unet(**given, windows=TimeWindows(16, 4)), unet(**given))


@torch.no_grad()
def test_no_frame_of_a_long_clip_attends_to_more_than_a_window(monkeypatch):
    unet, seen = network("unet", "tiny512"), []
    given = inputs(37, unet)
    context = unet.project_context(given.pop("text_context"), given.pop("image_context"))

    def watch(attend, query, key, value, windows):
        def watched(query, key, value):
            seen.append((query.shape[1], key.shape[1]))
            return attend(query, key, value)

        assert query.shape[1] == 37
        return attend_in_windows(watched, query, key, value, windows)

    monkeypatch.setattr(attention, "attend_in_windows", watch)
    answer = unet(**given, context=context, windows=TimeWindows(16, 4))
    temporal = [module for module in unet.modules() if isinstance(module, TimeSelfAttention)]
    assert seen == [(16, 16)] * (7 * len(temporal))
    assert answer.shape == (1, 4, 37, 4, 4)
    assert answer.isfinite().all()


def test_gradients_flow_through_windows():
    layer = TimeSelfAttention(8, num_heads=2)
    tokens = torch.randn(1, 12, 2, 8, requires_grad=True)
    layer(tokens, TimeWindows(8, 4).over(12)).square().sum().backward()
    assert (tokens.grad.abs().sum(dim=(0, 2, 3)) > 0).all()


@pytest.mark.parametrize(
    ("frames", "windows", "message"),
    [
        (17, None, "num_frames must be between 1 and 16, got 17; try 16"),
        (40, TimeWindows(20, 4), "window must be between 1 and 16, got 20; try 16"),
    ],
)
def test_more_frames_at_once_than_the_network_knows_are_refused(frames, windows, message):
    unet = network("unet", "tiny512")
    with pytest.raises(InputError, match=message):
        unet(**inputs(frames, unet), windows=windows)


def test_memory_and_arithmetic_of_a_long_clip_grow_with_its_length():
    unet = network("unet", "tiny512")
    built = type(unet).from_config(unet.config).to("meta")

    def cost(frames):
        given = {name: tensor.to("meta") for name, tensor in inputs(frames, unet).items()}
        return count_call(lambda: built(**given, windows=TimeWindows(16, 4)))

    short, middle, long = (cost(frames) for frames in (32, 64, 128))
    assert long.flops - middle.flops == 2 * (middle.flops - short.flops)
    assert long.peak_bytes - middle.peak_bytes == pytest.approx(2 * (middle.peak_bytes - short.peak_bytes), rel=0.01)
