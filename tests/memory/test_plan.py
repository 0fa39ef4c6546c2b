"""Memory plans: closed forms held against counts, measures in their order, and the published presets' figures."""

from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
import torch

from dynamicrafter.animator.memory import clip_needs
from dynamicrafter.memory.advice import advise, remedy
from dynamicrafter.memory.counting import count_call
from dynamicrafter.memory.footprint import measure_footprint
from dynamicrafter.memory.plan import CONTEXT_BYTES, MEASURES, make_plan, measures_on
from dynamicrafter.models.patch_autoencoder import PatchAutoencoder
from dynamicrafter.pipeline.loading import empty_model
from dynamicrafter.specs.options import AnimateOptions

GB = 10**9


@cache
def model(name):
    return empty_model(name)


def needs(name="seeded:512", *, device="cuda", gigabytes=24.0, dtype=torch.bfloat16, **options):
    networks, preset = model(name)
    chosen = AnimateOptions(**options).resolved(preset)
    return clip_needs(networks, chosen, device=torch.device(device), budget=int(gigabytes * GB), dtype=dtype)


def plan(*args, **settings):
    return needs(*args, **settings).plan()


def meta(*shape, dtype=torch.bfloat16):
    return torch.empty(shape, device="meta", dtype=dtype)


# Closed forms


@pytest.mark.parametrize(("height", "width"), [(256, 256), (576, 1024)])
def test_the_autoencoder_needs_what_its_formula_says(height, width):
    networks, _ = model("seeded:512")
    vae = networks["vae"].to(torch.bfloat16)
    found = measure_footprint(networks, height=height, width=width, num_frames=1, passes=1, dtype=torch.bfloat16)
    decoded = count_call(lambda: vae.decode(meta(1, 4, height // 8, width // 8), return_dict=False)[0]).peak_bytes
    encoded = count_call(lambda: vae.encode(meta(1, 3, height, width))).peak_bytes
    assert decoded <= found.decoding <= 1.15 * decoded
    assert encoded <= found.encoding <= 1.15 * encoded


def test_the_towers_and_the_projected_contexts_need_what_their_formula_says():
    networks, _ = model("seeded:512")
    for name in ("text_encoder", "image_encoder", "image_projector", "unet"):
        networks[name].to(torch.bfloat16)
    found = measure_footprint(networks, height=64, width=64, num_frames=16, passes=1, dtype=torch.bfloat16)
    calls = (
        lambda: networks["text_encoder"](meta(1, 77, dtype=torch.int64)),
        lambda: networks["image_encoder"](pixel_values=meta(1, 3, 224, 224)).last_hidden_state,
        lambda: networks["image_projector"](meta(1, 257, 1280), 16),
    )
    context = networks["unet"].project_context(meta(1, 77, 1024), meta(1, 16, 16, 1024))
    kept = sum(tensor.nbytes for layer in context for tensor in layer)
    assert max(count_call(call).peak_bytes for call in calls) < found.conditioning - kept < 40 * 2**20
    longer = measure_footprint(networks, height=64, width=64, num_frames=16, passes=2, dtype=torch.bfloat16)
    assert longer.conditioning - found.conditioning == kept


@pytest.mark.parametrize("side", [128, 256])
def test_the_small_autoencoder_needs_no_more_than_its_formula_says(side):
    vae = PatchAutoencoder().to("meta", torch.float32)
    networks = dict(model("bundled")[0]) | {"vae": vae}
    found = measure_footprint(networks, height=side, width=side, num_frames=1, passes=1, dtype=torch.float32)
    pixels = meta(1, 3, side, side, dtype=torch.float32)
    latents = meta(1, 16, side // 8, side // 8, dtype=torch.float32)
    assert count_call(lambda: vae.encode(pixels)).peak_bytes <= found.encoding
    assert count_call(lambda: vae.decode(latents)).peak_bytes <= found.decoding


# Plans


@pytest.mark.parametrize(
    ("preset", "gigabytes", "most", "measures"),
    [
        ("1024", 24, 10, ()),
        ("1024", 10, 10, ()),
        ("1024", 6, 6, ("encoders", "networks")),
        ("1024", 5, 5, ("encoders", "networks", "blocks")),
        ("512", 5, 5, ("encoders", "networks")),
        ("256", 3, 3, ("encoders", "networks", "blocks")),
    ],
)
def test_published_sizes_fit_a_gpu_by_as_little_as_is_needed(preset, gigabytes, most, measures):
    made = plan(f"seeded:{preset}", gigabytes=gigabytes)
    assert made.measures == measures
    assert made.fits
    assert made.peak_bytes < 0.9 * most * GB


def test_less_memory_never_asks_for_less():
    known = list(MEASURES)
    for device in ("cpu", "cuda", "mps"):
        plans = [plan("seeded:1024", device=device, gigabytes=gigabytes) for gigabytes in (40, 20, 12, 8, 6, 4, 2)]
        peaks = [made.peak_bytes for made in plans]
        assert peaks == sorted(peaks, reverse=True)
        for made in plans:
            assert list(made.measures) == sorted(made.measures, key=known.index)
            assert set(made.measures) <= set(measures_on(device))
        assert not plans[-1].fits or device == "cuda"


def test_every_measure_that_is_chosen_lowers_the_peak():
    tight = needs("seeded:1024", gigabytes=1, dtype=torch.float16)
    chosen = tight.plan().measures
    assert chosen == ("encoders", "tiles", "networks", "blocks", "int8")
    peaks = [replace(tight, measures=chosen[:count]).plan().peak_bytes for count in range(len(chosen) + 1)]
    assert all(later < earlier for earlier, later in pairwise(peaks))


def test_tiles_are_left_out_again_where_a_later_measure_makes_them_needless():
    networks, _ = model("seeded:512")
    footprint = measure_footprint(networks, height=320, width=512, num_frames=16, passes=2, dtype=torch.bfloat16)
    large = replace(footprint, decoding=3 * GB, denoising=0, denoising_together=0)
    assert make_plan(large, device="cuda", budget=6.5 * GB).measures == ("encoders", "tiles")
    assert make_plan(large, device="cuda", budget=4.5 * GB).measures == ("encoders", "networks")


def test_what_a_device_shares_with_the_processor_keeps_what_it_cannot_read_again():
    free = needs(device="mps", gigabytes=6)
    stuck = replace(free, fixed=frozenset(free.networks))
    assert free.plan().fits
    assert stuck.plan().peak_bytes > 6 * GB
    assert "networks" not in stuck.plan().measures


def test_the_processor_counts_the_libraries_and_the_gaps():
    gpu, cpu = plan(device="mps"), plan(device="cpu")
    assert cpu.beside > 0 == gpu.beside
    gpu = plan(device="cuda")
    assert cpu.phases["denoising"].activations > gpu.phases["denoising"].activations
    assert cpu.phases["denoising"].weights == gpu.phases["denoising"].weights


def test_a_plan_is_told_in_full():
    made = plan(gigabytes=5)
    told = dict(made.describe())
    assert told["memory"].startswith(
        f"{made.peak_bytes / 1e9:.2f} GB at most, CUDA's context 0.60 GB of it; weights 5.08 GB in all; one pass at a"
    )
    assert set(made.measures) <= set(told)
    phases = made.as_dict()["phases"].values()
    assert made.as_dict()["peak"] == made.beside + max(sum(phase.values()) for phase in phases)


def test_a_gpu_counts_cuda_and_is_told_so():
    made = plan(device="cuda")
    assert made.beside == CONTEXT_BYTES
    assert "CUDA's context 0.60 GB of it" in dict(made.describe())["memory"]


def test_frames_that_are_decoded_together_are_counted_together():
    one = needs("seeded:1024", gigabytes=80)
    four = replace(one, decode_chunk_size=4).plan()
    more = four.phases["decoding"].activations - one.plan().phases["decoding"].activations
    assert more == pytest.approx(3 * 7.6 * 128 * 576 * 1024 * 2, rel=0.01)
    assert four.decode_chunk_size == 4
    assert (
        replace(one, decode_chunk_size=64).plan().phases["decoding"]
        == replace(one, decode_chunk_size=16).plan().phases["decoding"]
    )


def test_apples_gpu_counts_the_scores_that_no_fused_kernel_spares():
    def scores(**options):
        mps, cuda = (plan(device=device, gigabytes=80, **options).phases["denoising"] for device in ("mps", "cuda"))
        return mps.activations - cuda.activations

    assert scores(size=(64, 64), frames=2) == int(2.5 * 2 * 5 * 64**2 * 4)
    assert scores(size=(576, 1024)) == int(2.5 * 512 * 2**20)


# Advice


def test_advice_names_the_least_change_that_fits():
    assert advise(needs(device="mps", gigabytes=7, dtype=torch.float32)) == "--dtype bfloat16"
    assert advise(needs("seeded:1024", device="mps", gigabytes=6)) == "--frames 8"
    assert advise(needs("seeded:1024", device="mps", gigabytes=5.3, frames=8)) == "--size 512x320"
    assert advise(needs(device="mps", gigabytes=1)) == ""


def test_the_remedy_is_reckoned_from_what_is_free():
    roomy = needs("seeded:1024", gigabytes=24)
    assert remedy(roomy, free=6 * GB) == "--memory 6GB makes it fit (encoders, networks)"
    assert remedy(roomy, free=9 * GB) == "--memory 9GB makes it fit (one pass at a time)"
    # The clip ran with all that 6 GB asked for, and these are free: only more measures can help.
    tight = needs("seeded:1024", gigabytes=6)
    assert remedy(tight, free=6 * GB) == "--memory 5.4GB makes it fit (encoders, networks, blocks)"
    assert remedy(needs("seeded:1024", device="mps", gigabytes=8), free=6 * GB) == "--frames 8 makes it fit"
    assert remedy(needs("seeded:1024", device="mps", gigabytes=8), free=GB).startswith("take a smaller --size")
