"""One clip to be made, as every face asks for it, and the check that all of them share. Importable without torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from dynamicrafter.errors import InputError
from dynamicrafter.modes import ANIMATE, INTERPOLATE, Mode, get_mode
from dynamicrafter.presets import Preset
from dynamicrafter.specs.gaps import Gap, key_frames, plan_gaps
from dynamicrafter.specs.hints import motion_hints, size_hints
from dynamicrafter.specs.options import PER_CLIP, AnimateOptions, ResolvedOptions, check_prompt, merged
from dynamicrafter.specs.pictures import LoadedPicture, PictureLike, load_picture

OnStep = Callable[[int, int], None]
OnDenoised = Callable[[Any], None] | None  # gets a tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSpec:
    """One clip to be made.

    Attributes:
        pictures: as many as the mode takes; between more than two, or closed, the clip is made gap by gap.
        prompts: what happens: one, or between pictures one for each gap.
        mode: a key of `MODES`.
        closed: whether a last gap leads back to the first picture, so that the clip loops.
        options: how it is made. Through key pictures, `frames` counts each gap with both its pictures, which are pinned
            by the mean of their latents, whatever `pin_first_frame` and `deterministic` say.
        item: names the random stream beside the seed, such as a job's key in a list; see `randomness`.
        sample: 0 for the first take of it, 1 for the second, …

    Raises:
        InputError: pictures, prompts and mode don't go together, or a prompt is too long.
    """

    pictures: tuple[PictureLike, ...]
    prompts: tuple[str, ...] = ("",)
    mode: Mode = ANIMATE
    closed: bool = False
    options: AnimateOptions = field(default_factory=AnimateOptions)
    item: str = ""
    sample: int = 0

    def __post_init__(self) -> None:
        entry = get_mode(self.mode)
        least, most = entry.pictures
        count = len(self.pictures)
        if count < least or (most is not None and count > most):
            wanted = f"{least}" if most == least else f"at least {least}" if most is None else f"{least} to {most}"
            raise InputError(f"pictures must be {wanted} to {self.mode}, got {count}.")
        for prompt in self.prompts:
            check_prompt("prompt", prompt)
        if entry.name == INTERPOLATE:
            self.gaps()
        elif self.closed or len(self.prompts) != 1:
            what = "closed must be left out" if self.closed else "prompts must be one"
            raise InputError(f"{what} with mode {self.mode}; {INTERPOLATE} goes through several pictures.")

    @property
    def is_joined(self) -> bool:
        """Whether the clip is made gap by gap; between two pictures alone it is the published interpolation."""
        return self.closed or len(self.pictures) > 2

    def gaps(self) -> list[Gap]:
        """The gaps between the pictures, in their order."""
        return plan_gaps(len(self.pictures), self.prompts, closed=self.closed, item=self.item)

    def loaded(self) -> ClipSpec:
        """The same with its pictures read.

        Raises:
            InputError: a picture can't be read.
        """
        return replace(self, pictures=tuple(map(load_picture, self.pictures)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CheckedClip:
    """A clip that nothing is wrong with, as far as can be told before it is made.

    Attributes:
        options: the spec's, none of them left open.
        pictures: the spec's, read.
        notes: what a person should know of it, a line each.
    """

    spec: ClipSpec
    options: ResolvedOptions
    pictures: tuple[LoadedPicture, ...]
    notes: tuple[str, ...] = ()

    @property
    def last_picture(self) -> LoadedPicture | None:
        """The picture that the clip ends on, if any."""
        entry = get_mode(self.spec.mode)
        return self.pictures[0 if entry.returns else -1] if entry.ends_on_picture else None

    def parts(self) -> list[CheckedClip]:
        """The clips between neighbouring pictures, of which a joined one is made; else itself."""
        if not self.spec.is_joined:
            return [self]
        options = replace(self.options, pin_first_frame=True, deterministic=True)
        return [
            CheckedClip(
                spec=replace(
                    self.spec,
                    pictures=(pair := (self.pictures[gap.first], self.pictures[gap.last])),
                    prompts=(gap.prompt,),
                    closed=False,
                    options=options,
                    item=gap.item,
                ),
                options=options,
                pictures=pair,
            )
            for gap in self.spec.gaps()
        ]

    def subject(self) -> dict[str, Any]:
        """What metadata keep of mode, prompts, pictures and stream."""
        spec, joined = self.spec, {}
        if spec.is_joined:
            frames = key_frames(len(self.pictures), self.options.frames)
            joined = {"keys": {"prompts": list(spec.prompts), "closed": spec.closed, "frames": frames}}
        return {
            "mode": spec.mode,
            "prompt": "; ".join(spec.prompts),
            "pictures": [picture.as_dict() for picture in self.pictures],
            **joined,
            "item": spec.item,
            "sample": spec.sample,
        }


def check_clip(spec: ClipSpec, preset: Preset, *, motions: Collection[str] = ()) -> CheckedClip:
    """Read a clip's pictures and resolve its options, each once.

    Args:
        preset: of the model that is to make it.
        motions: those that the model was taught; see `ModelDescription`.

    Raises:
        InputError: a picture can't be read, options don't go together, or the model can't make such a clip.
    """
    preset.check_mode(spec.mode)
    pictures = tuple(map(load_picture, spec.pictures))
    shape = pictures[0].shape if pictures else None
    options = spec.options.resolved(preset, mode=spec.mode, picture=shape)
    notes = [*options.notes(preset, spec.mode), *motion_hints(spec.prompts, motions)]
    if spec.options.size is None and shape is not None:
        notes += size_hints(options, shape)
    return CheckedClip(spec=spec, options=options, pictures=pictures, notes=tuple(notes))


def clip_spec(mode: Mode, pictures: Sequence[PictureLike], prompts: str | Sequence[str], **settings: Any) -> ClipSpec:
    """A spec from loose settings: those that `ClipSpec` knows, and the rest for its options, in any spelling.

    Raises:
        InputError: an unknown setting, or one that breaks its rule.
    """
    own = {each.name: settings.pop(each.name) for each in fields(ClipSpec) if each.name in settings}
    return ClipSpec(
        mode=mode,
        pictures=tuple(pictures),
        prompts=(prompts,) if isinstance(prompts, str) else tuple(prompts),
        options=merged(own.pop("options", AnimateOptions()), settings),
        **own,
    )


def check_together(clips: Sequence[CheckedClip]) -> None:
    """Raises InputError where clips don't go into one batch, which shares one run of the sampler."""
    joined = [clip for clip in clips if clip.spec.is_joined]
    if joined and len(clips) > 1:
        raise InputError(f"clips through key pictures must be run one by one, got {len(clips)} together.")
    same = [option.name for option in fields(AnimateOptions) if option.name not in PER_CLIP]
    for name, values in (
        *((name, {getattr(clip.options, name) for clip in clips}) for name in sorted(same)),
        ("mode", {clip.spec.mode for clip in clips}),
    ):
        if len(values) > 1:
            listed = ", ".join(sorted(map(str, values)))
            raise InputError(f"clips of one batch must have the same {name}, got {listed}; run them apart.")
