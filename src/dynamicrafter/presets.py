"""The released checkpoints, and the small model that comes with the package, as one table of frozen, typed values.

Everything that tells one checkpoint from another stands here once; the command line, the pipeline, the checks and
the documentation read it. Source: arXiv:2310.12190 and the released configurations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dynamicrafter.errors import InputError
from dynamicrafter.modes import ANIMATE, INTERPOLATE, LOOP, TEXT, Mode
from dynamicrafter.samplers import DDIM, UNIPC, Sampler, get_sampler
from dynamicrafter.schema import Choice, OptionError, Range, Timesteps, read_fields

Prediction = Literal["epsilon", "v_prediction", "sample"]
Spacing = Literal["uniform", "uniform_trailing"]
Quality = str  # a key of QUALITIES
PresetName = str  # of a row of the table
NetworkName = Literal[
    "dynamicrafter",
    "dynamicrafter_toon",
    "videocrafter1_image",
    "videocrafter1_text",
    "videocrafter1_text_fps",
    "videocrafter2_text",
]

NUM_TRAIN_TIMESTEPS = 1000
EVERY_TIMESTEP = (0, NUM_TRAIN_TIMESTEPS - 1)
INTERVAL = Timesteps(last=EVERY_TIMESTEP[1])
NUM_FRAMES = 16  # the length that the released checkpoints were trained on
MAX_FRAMES = 512  # of a clip that is made in windows of that length
SMALLEST_WINDOW = 4  # of which two frames may be the pictures that a clip begins and ends with
WINDOW_STRIDE = 4  # frames from one window's beginning to the next one's (arXiv:2310.15169, §4.1)
SIZE_MULTIPLE = 64  # pixels: 8 for the autoencoder times 8 for the UNet's three halvings
LARGEST_SIDE = 4096  # pixels: four times the largest preset's; a slip of the hand would fill any memory
OUTPUT_FPS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionControl:
    """What the UNet's second scalar means for one checkpoint, and the range it was tuned for."""

    unit: Literal["frame stride", "frames per second"]
    default: int
    calm: int  # least motion: the smallest stride, but the *highest* frame rate
    lively: int  # most motion

    def __post_init__(self) -> None:
        read_fields(self)

    @property
    def low(self) -> int:
        return min(self.calm, self.lively)

    @property
    def high(self) -> int:
        return max(self.calm, self.lively)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a run spends the UNet's calls."""

    steps: int
    sampler: Sampler
    guidance_interval: tuple[int, int] = EVERY_TIMESTEP
    cache: float = 0.0  # see `DeepFeatures`; 0: none


# Measured in docs/speed.md. Guidance is left out where it costs most and changes least, at low noise.
QUALITIES: dict[Quality, Sampling] = {
    "exact": Sampling(steps=50, sampler=DDIM),
    "high": Sampling(steps=20, sampler=UNIPC),
    "fast": Sampling(steps=9, sampler=UNIPC, guidance_interval=(150, 999)),
    "draft": Sampling(steps=5, sampler=UNIPC, guidance_interval=(300, 999)),
}


QUALITY = Choice(lambda: tuple(QUALITIES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One released checkpoint: its size, noise schedule, motion number, default sampling and where it lives."""

    name: PresetName
    height: int  # pixels
    width: int
    prediction: Prediction
    zero_terminal_snr: bool
    base_scale: float | None  # where the latent rescale s_t ends; None: no rescale
    spacing: Spacing
    guidance_rescale: float
    motion: MotionControl
    learned_image_scale: bool  # image cross-attention weighted by tanh(alpha) + 1 instead of 1
    modes: tuple[Mode, ...]  # that it was trained for
    repo: str  # on the Hugging Face hub; empty for the one that comes with the package
    file: str = "model.ckpt"
    aliases: tuple[str, ...] = ()
    steps: int = 50
    eta: float = 1.0
    guidance: float = 7.5
    sampler: Sampler = DDIM
    network: NetworkName = "dynamicrafter"  # see `architectures.NETWORKS`
    ends_clean: bool = False  # whether DDIM's last step undoes the latent rescale

    def __post_init__(self) -> None:
        read_fields(self)

    def sampling(self, quality: Quality | None) -> Sampling:
        """What a quality stands for; None for the preset's own settings."""
        return Sampling(steps=self.steps, sampler=self.sampler) if quality is None else QUALITIES[quality]

    def eta_for(self, sampler: Sampler) -> float:
        """The share of fresh noise where none is asked for: DDIM's as published, and what the others were made for."""
        eta = get_sampler(sampler).eta
        return self.eta if eta is None else eta

    def check_mode(self, mode: Mode) -> None:
        """Raises InputError where the networks can't make clips in a mode, trained for it or not."""
        strict = self.network != "dynamicrafter" or mode == TEXT
        if strict and mode not in self.modes:
            able = [preset.called for preset in every_preset() if mode in preset.modes]
            raise InputError(
                f"mode must be {' or '.join(self.modes)} with preset {self.name}, got {mode}; for that take "
                f"{' or '.join(able)}."
            )

    @property
    def interpolates(self) -> bool:
        """Whether it was trained on the first and the last frame."""
        return INTERPOLATE in self.modes

    @property
    def called(self) -> str:
        """The name that people use for it."""
        return self.aliases[0] if self.aliases else self.name

    @property
    def motion_key(self) -> str:
        """The published name of the motion number's embedding, by which files are told apart."""
        return "framestride_embed" if self.motion.unit == "frame stride" else "fps_embedding"


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            name="256",
            height=256,
            width=256,
            prediction="epsilon",
            zero_terminal_snr=False,
            base_scale=None,
            spacing="uniform",
            guidance_rescale=0.0,
            motion=MotionControl(unit="frame stride", default=3, calm=1, lively=6),
            learned_image_scale=True,
            modes=(ANIMATE,),
            repo="Doubiiu/DynamiCrafter",
        ),
        Preset(
            name="512",
            height=320,
            width=512,
            prediction="v_prediction",
            zero_terminal_snr=True,
            base_scale=0.7,
            spacing="uniform_trailing",
            guidance_rescale=0.7,
            motion=MotionControl(unit="frames per second", default=24, calm=30, lively=15),
            learned_image_scale=False,
            modes=(ANIMATE,),
            repo="Doubiiu/DynamiCrafter_512",
        ),
        Preset(
            name="1024",
            height=576,
            width=1024,
            prediction="v_prediction",
            zero_terminal_snr=True,
            base_scale=0.3,
            spacing="uniform_trailing",
            guidance_rescale=0.7,
            motion=MotionControl(unit="frames per second", default=10, calm=15, lively=5),
            learned_image_scale=False,
            modes=(ANIMATE,),
            repo="Doubiiu/DynamiCrafter_1024",
        ),
        Preset(
            name="512_interp",
            height=320,
            width=512,
            prediction="v_prediction",
            zero_terminal_snr=True,
            base_scale=0.7,
            spacing="uniform_trailing",
            guidance_rescale=0.7,
            motion=MotionControl(unit="frames per second", default=5, calm=30, lively=5),
            learned_image_scale=False,
            modes=(INTERPOLATE, LOOP),
            repo="Doubiiu/DynamiCrafter_512_Interp",
            aliases=("interp", "512-interp"),
        ),
        Preset(
            name="toon",
            height=320,
            width=512,
            prediction="v_prediction",
            zero_terminal_snr=True,
            base_scale=0.7,
            spacing="uniform_trailing",
            guidance_rescale=0.7,
            motion=MotionControl(unit="frames per second", default=10, calm=30, lively=5),
            learned_image_scale=False,
            modes=(INTERPOLATE, LOOP),
            repo="Doubiiu/ToonCrafter",
            aliases=("tooncrafter",),
            network="dynamicrafter_toon",
        ),
        Preset(
            name="vc1_text_512",
            height=320,
            width=512,
            prediction="epsilon",
            zero_terminal_snr=False,
            base_scale=None,
            spacing="uniform",
            guidance_rescale=0.0,
            motion=MotionControl(unit="frames per second", default=28, calm=32, lively=4),
            learned_image_scale=False,
            modes=(TEXT,),
            repo="VideoCrafter/Text2Video-512",
            aliases=("vc1",),
            guidance=12.0,
            network="videocrafter1_text",
            ends_clean=True,
        ),
        Preset(
            name="vc1_text_1024",
            height=576,
            width=1024,
            prediction="epsilon",
            zero_terminal_snr=False,
            base_scale=0.3,
            spacing="uniform",
            guidance_rescale=0.0,
            motion=MotionControl(unit="frames per second", default=28, calm=32, lively=4),
            learned_image_scale=False,
            modes=(TEXT,),
            repo="VideoCrafter/Text2Video-1024",
            aliases=("vc1-1024",),
            guidance=12.0,
            network="videocrafter1_text_fps",
            ends_clean=True,
        ),
        Preset(
            name="vc2_text_512",
            height=320,
            width=512,
            prediction="epsilon",
            zero_terminal_snr=False,
            base_scale=0.7,
            spacing="uniform",
            guidance_rescale=0.0,
            motion=MotionControl(unit="frames per second", default=28, calm=32, lively=4),
            learned_image_scale=False,
            modes=(TEXT,),
            repo="VideoCrafter/VideoCrafter2",
            aliases=("vc2",),
            guidance=12.0,
            network="videocrafter2_text",
            ends_clean=True,
        ),
        Preset(
            name="vc1_image_512",
            height=320,
            width=512,
            prediction="epsilon",
            zero_terminal_snr=False,
            base_scale=0.7,
            spacing="uniform",
            guidance_rescale=0.0,
            motion=MotionControl(unit="frames per second", default=8, calm=32, lively=4),
            learned_image_scale=False,
            modes=(ANIMATE,),
            repo="VideoCrafter/Image2Video-512",
            aliases=("vc1-image",),
            guidance=12.0,
            network="videocrafter1_image",
            ends_clean=True,
        ),
    )
}

USUAL_PRESET = "512"  # where one must stand for all

# The small model of the package: trained from nothing on clips of known motion; see docs/model-card.md. It answers x₀,
# which few training clips teach better than v, and has learned to follow the prompt without guidance.
BUNDLED = Preset(
    name="bundled",
    height=128,
    width=128,
    prediction="sample",
    zero_terminal_snr=True,
    base_scale=None,
    spacing="uniform_trailing",
    guidance_rescale=0.0,
    motion=MotionControl(unit="frames per second", default=12, calm=24, lively=8),
    learned_image_scale=False,
    modes=(ANIMATE, INTERPOLATE, LOOP),
    repo="",
    steps=12,
    eta=0.0,
    guidance=1.0,
)


def every_preset() -> list[Preset]:
    """The released presets, and the package's own last."""
    return [*PRESETS.values(), BUNDLED]


def get_preset(name: str) -> Preset:
    """Look a preset up by its name or an alias ("interp" is short for "512_interp").

    Raises:
        InputError: no preset has that name.
    """
    known = every_preset()
    for preset in known:
        if name == preset.name or name in preset.aliases:
            return preset
    raise InputError(f"preset must be one of {', '.join(preset.name for preset in known)}, got {name!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedCopy:
    """A community copy of a released checkpoint: flat safetensors with the published key names."""

    preset: PresetName
    file: str
    has_encoders: bool  # without them, text and image encoders come from ENCODER_REPO


PRUNED_REPO = "Kijai/DynamiCrafter_pruned"
PRUNED_COPIES = (
    PrunedCopy(preset="1024", file="dynamicrafter_1024_v1_bf16.safetensors", has_encoders=True),
    PrunedCopy(preset="512_interp", file="dynamicrafter_512_interp_v1_bf16.safetensors", has_encoders=True),
    PrunedCopy(preset="512", file="dynamicrafter_512_fp16_pruned.safetensors", has_encoders=False),
    PrunedCopy(preset="512_interp", file="dynamicrafter_512_interp_fp16_pruned.safetensors", has_encoders=False),
    PrunedCopy(preset="1024", file="dynamicrafter_1024_fp16_pruned.safetensors", has_encoders=False),
)
ENCODER_REPO = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


def check_frame_size(height: int, width: int, *, name: str = "size") -> None:
    """Hold a frame size in pixels against what the networks can halve.

    Args:
        name: of the option that gave it.

    Raises:
        OptionError: a side is not a positive multiple of `SIZE_MULTIPLE`, and then the nearest that is gets named, or
            it is longer than `LARGEST_SIDE`.
    """
    for side, value in (("height", height), ("width", width)):
        if value <= 0 or value % SIZE_MULTIPLE:
            near = max(SIZE_MULTIPLE, round(value / SIZE_MULTIPLE) * SIZE_MULTIPLE)
            raise _SideError(
                name, side, f"must be a positive multiple of {SIZE_MULTIPLE} pixels, got {value}; try {near}."
            )
        if value > LARGEST_SIDE:
            raise _SideError(name, side, f"must be at most {LARGEST_SIDE} pixels, got {value}; try {LARGEST_SIDE}.")


class _SideError(OptionError):
    """A frame size breaks a rule by one of its sides, which the message names."""

    def __init__(self, option: str, side: str, text: str) -> None:
        super().__init__(side, text)
        self.option = option


def auto_size(preset: Preset, picture: tuple[int, int]) -> tuple[int, int]:
    """The frame (height, width) in a picture's shape with about as many pixels as the preset's.

    Args:
        picture: its height and width.

    Raises:
        InputError: a picture so long that its frame would be longer than `LARGEST_SIDE`.
    """
    area, (height, width) = preset.height * preset.width, picture
    sides = ((area * height / width) ** 0.5, (area * width / height) ** 0.5)
    high, wide = (max(SIZE_MULTIPLE, round(side / SIZE_MULTIPLE) * SIZE_MULTIPLE) for side in sides)
    if max(high, wide) > LARGEST_SIDE:
        raise InputError(
            f"size auto needs a picture whose frame is at most {LARGEST_SIDE} pixels long, got {wide}x{high} for a "
            f"picture of {width}x{height}; name a size, such as {preset.width}x{preset.height}."
        )
    return high, wide


CACHE = Range(0, 1)  # of `cache`, the change of features relative to themselves


def check_interval(interval: tuple[int, int]) -> None:
    """Raises InputError where these are not a first and a last timestep."""
    INTERVAL.read("guidance_interval", interval)


def check_cache(tolerance: float) -> None:
    """Raises InputError where this is no change of features relative to themselves."""
    CACHE.check("cache", tolerance)


def preset_from_dict(fields: Mapping[str, Any] | None) -> Preset:
    """Rebuild a preset from the dictionary that a saved pipeline keeps of it.

    The modes and aliases of an older folder, which says none, are those of the table's preset of its name.

    Raises:
        InputError: a field is missing, unknown or of a wrong type, as in a folder written by a newer version.
    """
    try:
        given = dict(fields or {})
        between = given.pop("interpolates", False)
        if not isinstance(between, bool):
            raise TypeError(f"interpolates must be true or false, got {between!r}")
        usual = next((preset for preset in every_preset() if preset.name == given.get("name")), None)
        modes = usual.modes if usual else (INTERPOLATE, LOOP) if between else (ANIMATE,)
        values: dict[str, Any] = {"modes": modes, "aliases": usual.aliases if usual else (), **given}
        return Preset(**values | {"motion": MotionControl(**values["motion"])})
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the folder's preset can't be read ({str(error).rstrip('.')}); convert the checkpoint again."
        ) from error
