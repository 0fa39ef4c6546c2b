"""`Animator`: pictures and prompts in, clips out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dynamicrafter
from dynamicrafter import hub
from dynamicrafter.animator.clip import DEFAULT_FPS, Clip
from dynamicrafter.animator.memory import clip_needs
from dynamicrafter.checkpoints.files import fingerprint
from dynamicrafter.errors import InputError, MemoryShortageError
from dynamicrafter.kernels.compilation import check_compiler
from dynamicrafter.memory.advice import ClipNeeds, is_out_of_memory, remedy
from dynamicrafter.memory.devices import budget_bytes, choose_device, choose_dtype, free_memory, total_memory
from dynamicrafter.memory.malloc import trim_heap
from dynamicrafter.memory.offload import free_cached_memory
from dynamicrafter.memory.plan import INEXACT, SHARE, MemoryPlan
from dynamicrafter.modes import ANIMATE, INTERPOLATE, LOOP, TEXT, Mode, get_mode
from dynamicrafter.pipeline import DynamiCrafterPipeline
from dynamicrafter.pipeline.lora import lora_file, trained_motions
from dynamicrafter.pipeline.trained_motion import with_trained_motion
from dynamicrafter.presets import Preset
from dynamicrafter.randomness import generator_for
from dynamicrafter.specs.adapters import Adapter, LoraLike, parse_adapters
from dynamicrafter.specs.clip import CheckedClip, ClipSpec, OnDenoised, OnStep, check_clip, check_together, clip_spec
from dynamicrafter.specs.gaps import join_gaps, match_colours
from dynamicrafter.specs.hints import BUNDLED_MOTIONS
from dynamicrafter.specs.metadata import MadeBy, clip_metadata
from dynamicrafter.specs.model import ModelSpec, model_spec
from dynamicrafter.specs.options import AnimateOptions, ResolvedOptions
from dynamicrafter.specs.pictures import PictureLike
from dynamicrafter.units import FREE, parse_memory

logger = logging.getLogger(__name__)


class Animator:
    """A model ready to make clips.

    Args:
        pipeline: on its device, in its number format.
        model: name that the clips' metadata keep.
        model_hash: fingerprint of the weights, for the same.
        device: to run on; None for where the pipeline is.
        memory: the most that a run may take, such as 8GB; "free" for what other programs leave when it begins; None
            for all that the device has.
    """

    def __init__(
        self,
        pipeline: DynamiCrafterPipeline,
        *,
        model: str,
        model_hash: str = "",
        device: torch.device | None = None,
        memory: str | None = None,
    ) -> None:
        self.pipeline = pipeline
        self._device = device
        self.memory = memory if memory is None or memory == FREE else parse_memory(memory)
        self.model = model
        self.model_hash = model_hash
        self.loras: tuple[Adapter, ...] = ()
        self._motions: Counter[int] = Counter()

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        *,
        preset: str | None = None,
        encoders: str | Path | None = None,
        device: str | None = None,
        dtype: str | None = None,
        download: bool = False,
        lora: LoraLike | Iterable[LoraLike] = (),
        memory: str | None = None,
        compile: bool = False,  # noqa: A002 PyTorch's word
        place: bool = True,
    ) -> Animator:
        """Load a model by name, folder or file and put it on a device.

        Args:
            model: see `DynamiCrafterPipeline.from_pretrained`; None for the largest that is on this machine and was
                made to animate, or else the package's own small one.
            preset: which released checkpoint a file descends from, where the file can't tell.
            encoders: file or folder with CLIP's towers, for a file without.
            device: cpu, cuda, cuda:N or mps; None for the best there is.
            dtype: float32, bfloat16 or float16; None for what suits the device.
            download: fetch what is not on this machine.
            lora: adapters to put on it, as `load_lora` takes them: one, or several.
            memory: as for `Animator`; what doesn't fit is made to (docs/memory.md).
            compile: make one graph of the UNet with PyTorch's compiler (docs/speed.md). The first step at each size
                then takes minutes, and less where PyTorch's cache on disk knows it.
            place: put the networks on the device at once, if there is ample room; else each comes for its first run.

        Raises:
            InputError: no such device or dtype, no compiler, no such model, or weights or adapters that can't be used.
        """
        return cls.load(
            model_spec(
                model,
                preset=preset,
                encoders=encoders,
                device=device,
                dtype=dtype,
                download=download,
                lora=lora,
                memory=memory,
                compile=compile,
            ),
            place=place,
        )

    @classmethod
    def load(cls, spec: ModelSpec, *, place: bool = True) -> Animator:
        """Load a model; arguments as in `from_pretrained`, as one value."""
        spec = spec.chosen()
        target = choose_device(spec.device)
        if spec.compile:
            check_compiler(target)
        options: dict[str, Any] = {"dtype": choose_dtype(spec.dtype, target)}
        options |= {name: value for name in ("preset", "encoders") if (value := getattr(spec, name)) is not None}
        # With little memory, no more is read or moved than a run's plan asks for.
        lazy = spec.memory is not None
        pipeline = DynamiCrafterPipeline.from_pretrained(str(spec.name), download=spec.download, lazy=lazy, **options)
        if place and not lazy and _weight_bytes(pipeline) < SHARE * total_memory(target):
            pipeline.to(target)
        animator = cls(pipeline, model=str(spec.name), model_hash=_hash_of(pipeline), device=target, memory=spec.memory)
        for adapter in spec.lora:
            animator.load_lora(adapter)
        if spec.compile:
            logger.info("The first step at each size compiles the UNet, which takes minutes.")
            pipeline.unet.compile(dynamic=False)
        return animator

    def load_lora(self, lora: LoraLike) -> None:
        """Put adapters on the model, beside those that it has; all clips from now on are made with them.

        Args:
            lora: a `.safetensors` file that `train` or diffusers wrote, or a folder that holds one; "FILE:SCALE" or
                `Adapter(path=…, scale=…)` for another strength than 1.

        Raises:
            InputError: no such file, a file of something else or for another model, or peft is not installed.
        """
        [adapter] = parse_adapters([lora])
        file = lora_file(adapter.path)
        self.pipeline.apply_plan(None, self.device)
        self.pipeline.onload("unet")
        names = [f"lora-{number}" for number in range(len(self.loras) + 1)]
        self.pipeline.load_lora_weights(file, adapter_name=names[-1])
        self.loras = (*self.loras, replace(adapter, hash=fingerprint(file)))
        self._motions += trained_motions(file)
        self.pipeline.set_adapters(names, [each.scale for each in self.loras])

    @property
    def device(self) -> torch.device:
        """Where clips are made."""
        return self._device or self.pipeline.device

    @property
    def preset(self) -> Preset:
        """The model's, with the motion numbers that its adapters were trained under."""
        return with_trained_motion(self.pipeline.preset, self._motions)

    def plan(
        self,
        options: AnimateOptions,
        *,
        mode: Mode = ANIMATE,
        picture: tuple[int, int] | None = None,
        clips: int = 1,
    ) -> MemoryPlan:
        """What clips with these options take in memory, and what is done to make them fit.

        Args:
            picture: height and width of the (first) picture, by which size auto goes; None for the preset's shape.
            clips: made as one batch.

        Raises:
            InputError: an option breaks its rule.
        """
        return self._needs(options.resolved(self.preset, mode=mode, picture=picture), clips).plan()

    def plan_of(self, clip: CheckedClip, *, clips: int = 1) -> MemoryPlan:
        """The same for a clip whose options are resolved already."""
        return self._needs(clip.options, clips).plan()

    def _needs(self, options: ResolvedOptions, clips: int) -> ClipNeeds:
        offloader, networks = self.pipeline.offloader, self.pipeline.networks
        return clip_needs(
            networks,
            options,
            device=self.device,
            budget=budget_bytes(self.memory, self.device),
            videos=clips,
            fixed=offloader.fixed(networks, self.device),
            measures=offloader.measures(networks, self.device),
        )

    def animate(self, image: PictureLike, prompt: str = "", **settings: Any) -> Clip:
        """Animate one picture as the prompt says.

        Args:
            image: a file, a PIL image or an array (h, w, 3).
            settings: fields of `ClipSpec` (`options`, `item`, `sample`) or of `AnimateOptions` (`steps`, `seed`, …),
                in any of their documented spellings.

        Raises:
            InputError: an unreadable picture, or an option that breaks its rule.
        """
        return self.run([clip_spec(ANIMATE, [image], prompt, **settings)])[0]

    def generate(self, prompt: str, **settings: Any) -> Clip:
        """Make a clip from words alone, with a model for that; settings as in `animate`."""
        return self.run([clip_spec(TEXT, [], prompt, **settings)])[0]

    def interpolate(self, first: PictureLike, last: PictureLike, prompt: str = "", **settings: Any) -> Clip:
        """Fill the time between two pictures; arguments as in `animate`."""
        return self.interpolate_through([first, last], prompt, **settings)

    def interpolate_through(
        self, pictures: Sequence[PictureLike], prompt: str | Sequence[str] = "", **settings: Any
    ) -> Clip:
        """Fill the time between several key pictures, each of which stands in the clip once.

        Pinned to the same latents, the end of one gap and the beginning of the next are the same frame, and the colours
        on both sides are matched to it. Two pictures alone make the published interpolation.

        Args:
            pictures: two or more, each as in `animate`.
            prompt: what happens: one for all gaps, or one for each.
            settings: as in `animate`; `closed` lets a last gap lead back to the first picture, so that the clip loops.
                See `ClipSpec` for what `frames` counts.

        Raises:
            InputError: as in `animate`; fewer than two pictures, or prompts that don't match the gaps.
        """
        return self.run([clip_spec(INTERPOLATE, pictures, prompt, **settings)])[0]

    def loop(self, image: PictureLike, prompt: str = "", **settings: Any) -> Clip:
        """Animate a picture so that the clip's end runs into its beginning; one frame shorter than asked.

        The network interpolates from the picture to itself, and the last frame, a repeat of the first, is left out.
        """
        return self.run([clip_spec(LOOP, [image], prompt, **settings)])[0]

    def run(
        self,
        clips: Sequence[ClipSpec | CheckedClip],
        *,
        on_step: OnStep | None = None,
        on_denoised: OnDenoised = None,
    ) -> list[Clip]:
        """Make several clips as one batch; each is what it would be alone, up to rounding.

        Args:
            clips: alike in mode and in every option but motion, negative and seed; pictures, prompts and streams may
                differ too. One through key pictures goes alone, and is made gap by gap.
            on_step: called after each step with the number of steps done and of all; its errors end the run.
            on_denoised: called before it with what the step took for the clean clips, (b, 4, f, h/8, w/8); no copy.

        Raises:
            InputError: no clips, or clips that don't go together.
            MemoryShortageError: memory ran out all the same; its message says what helps. The animator goes on working.
        """
        if not clips:
            raise InputError("clips must hold at least one clip, got none.")
        checked = [clip if isinstance(clip, CheckedClip) else self._checked(clip) for clip in clips]
        check_together(checked)
        parts = checked[0].parts()
        if len(parts) == 1:
            return self._run_together(checked, on_step=on_step, on_denoised=on_denoised)
        made: list[Clip] = []

        def after_step(done: int, steps: int) -> None:
            if on_step is not None:
                on_step(len(made) * steps + done, len(parts) * steps)

        for part in parts:
            made += self._run_together([part], on_step=after_step, on_denoised=on_denoised)
        joined = join_gaps([match_colours(clip.frames) for clip in made], closed=checked[0].spec.closed)
        kept = replace(checked[0], options=parts[0].options)
        return [Clip(joined, DEFAULT_FPS, self._metadata(kept), kept.notes)]

    def _checked(self, spec: ClipSpec) -> CheckedClip:
        clip = check_clip(spec, self.preset, motions=self._motion_loras)
        for note in clip.notes:
            logger.warning("%s", note)
        return clip

    @property
    def _motion_loras(self) -> tuple[str, ...]:
        source = self.pipeline.config.get("_name_or_path")
        is_bundled = bool(source) and Path(source) == hub.BUNDLED_FOLDER and not self.loras
        return BUNDLED_MOTIONS if is_bundled else ()

    def _run_together(
        self, clips: Sequence[CheckedClip], *, on_step: OnStep | None, on_denoised: OnDenoised
    ) -> list[Clip]:
        options = clips[0].options

        def after_step(pipeline: Any, step: int, timestep: int, tensors: dict[str, Any]) -> dict[str, Any]:
            if on_denoised is not None:
                on_denoised(tensors["denoised"])
            if on_step is not None:
                on_step(step + 1, options.steps)
            return {}

        endings = [last.image for clip in clips if (last := clip.last_picture) is not None]
        (frames,) = self._run_within(
            self._needs(options, len(clips)),
            [clip.pictures[0].image for clip in clips if clip.pictures] or None,
            [clip.spec.prompts[0] for clip in clips],
            last_image=endings or None,
            negative_prompt=[clip.options.negative for clip in clips],
            height=options.size[0],
            width=options.size[1],
            fit=options.fit,
            num_frames=options.frames,
            window=options.window,
            window_stride=options.window_stride,
            num_inference_steps=options.steps,
            sampler=options.sampler,
            start_step=options.start_step,
            guidance_scale=options.guidance,
            image_guidance_scale=options.separate_image_guidance,
            guidance_rescale=options.guidance_rescale,
            guidance_interval=options.partial_guidance,
            eta=options.eta,
            cache=options.cache,
            motion=[clip.options.motion for clip in clips],
            generator=[
                generator_for(clip.options.seed, item=clip.spec.item, sample=clip.spec.sample) for clip in clips
            ],
            deterministic_image_latents=options.deterministic,
            pin_first_frame=options.pin_first_frame,
            output_type="uint8",
            return_dict=False,
            callback_on_step_end=after_step,
            callback_on_step_end_tensor_inputs=("denoised",),
        )
        assert isinstance(frames, np.ndarray)
        if get_mode(clips[0].spec.mode).returns:
            frames = frames[:, :-1]
        return [
            Clip(made, DEFAULT_FPS, self._metadata(clip), clip.notes) for made, clip in zip(frames, clips, strict=True)
        ]

    def _run_within(self, needs: ClipNeeds, *arguments: Any, **options: Any) -> Any:
        """Call the pipeline as its memory plan says, and leave it fit for the next call where memory runs out."""
        plan = needs.plan()
        logger.info("memory plan: %s", plan.as_dict())
        try:
            self.pipeline.apply_plan(plan, self.device)
            made = self.pipeline(*arguments, **options)
            trim_heap()  # for as long as nobody asks for more
            return made
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # Not in the handler, where the error still holds all that the run had allocated.
        self.pipeline.apply_plan(None, self.device)
        free_cached_memory(self.device)
        advice = remedy(needs, free=free_memory(self.device))
        raise MemoryShortageError(f"out of memory on {self.device}; {advice}.")

    def _metadata(self, clip: CheckedClip) -> dict[str, Any]:
        plan = self.pipeline.offloader.plan
        measures = [] if plan is None else [name for name in plan.measures if name in INEXACT]
        return clip_metadata(clip, self.made_by, memory=measures)

    @property
    def made_by(self) -> MadeBy:
        """What clips are made by, as their metadata say it."""
        return MadeBy(
            model=self.model,
            preset=self.preset.name,
            model_hash=self.model_hash,
            loras=self.loras,
            device=self.device.type,
            dtype=str(self.pipeline.unet.dtype).removeprefix("torch."),
            torch=torch.__version__,
            generator=f"dynamicrafter {dynamicrafter.__version__}",
        )


def _hash_of(pipeline: DynamiCrafterPipeline) -> str:
    source = pipeline.config.get("_name_or_path")
    return fingerprint(source) if source and Path(source).exists() else ""


def _weight_bytes(pipeline: DynamiCrafterPipeline) -> int:
    return sum(parameter.nbytes for network in pipeline.networks.values() for parameter in network.parameters())
