"""`Animator`: pictures and prompts in, clips out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image

import dynamicrafter
from dynamicrafter.animator.adapters import Adapter, LoraLike, parse_adapters
from dynamicrafter.animator.clip import DEFAULT_FPS, Clip
from dynamicrafter.animator.devices import choose_device, choose_dtype
from dynamicrafter.animator.keys import KeyShot, join_gaps, match_colours
from dynamicrafter.animator.memory import ClipNeeds, is_out_of_memory, remedy
from dynamicrafter.animator.options import AnimateOptions, Mode
from dynamicrafter.animator.shots import (
    OnDenoised,
    OnStep,
    PictureLike,
    Shot,
    check_together,
    last_picture,
    shot_of,
    stored_pictures,
)
from dynamicrafter.checkpoints.files import fingerprint
from dynamicrafter.errors import InputError, MemoryShortageError
from dynamicrafter.hub import best_local
from dynamicrafter.media.pictures import read_picture
from dynamicrafter.pipeline import DynamiCrafterPipeline
from dynamicrafter.pipeline.heap import give_back_heap
from dynamicrafter.pipeline.lora import lora_file, trained_motions
from dynamicrafter.pipeline.memory import INEXACT, SHARE, MemoryPlan, device_bytes, free_bytes
from dynamicrafter.pipeline.residency import release
from dynamicrafter.pipeline.trained_motion import with_trained_motion
from dynamicrafter.presets import Preset
from dynamicrafter.randomness import generator_for
from dynamicrafter.units import parse_memory

logger = logging.getLogger(__name__)


class Animator:
    """A model ready to make clips.

    Args:
        pipeline: on its device, in its number format.
        model: name that the clips' metadata keep.
        model_hash: fingerprint of the weights, for the same.
        device: to run on; None for where the pipeline is.
        memory: the most that a run may take, such as 8GB; None for all that the device has.
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
        self.memory = None if memory is None else parse_memory(memory)
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
            memory: the most that a run may take, such as 8GB; what doesn't fit is made to (docs/memory.md). None for
                all that the device has.

        Raises:
            InputError: no such device or dtype, no such model, or weights or adapters that can't be used.
        """
        adapters = parse_adapters(lora)
        model = str(best_local("animate").preset) if model is None else model
        target = choose_device(device)
        options: dict[str, Any] = {"dtype": choose_dtype(dtype, target)}
        if preset is not None:
            options["preset"] = preset
        if encoders is not None:
            options["encoders"] = encoders
        # With little memory, no more is read or moved than a run's plan asks for.
        limit = device_bytes(target) if memory is None else parse_memory(memory)
        pipeline = DynamiCrafterPipeline.from_pretrained(model, download=download, lazy=memory is not None, **options)
        if memory is None and _weight_bytes(pipeline) < SHARE * limit:
            pipeline.to(target)
        animator = cls(pipeline, model=str(model), model_hash=_hash_of(pipeline), device=target, memory=memory)
        for adapter in adapters:
            animator.load_lora(adapter)
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
        self.pipeline.follow(None, self.device)
        self.pipeline.use("unet")
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
        mode: Mode = "animate",
        picture: tuple[int, int] | None = None,
        clips: int = 1,
    ) -> MemoryPlan:
        """What clips with these options take in memory, and what is done to make them fit.

        Args:
            picture: height and width of the (first) picture, by which size auto goes; a square one where it is None.
            clips: made as one batch.

        Raises:
            InputError: an option breaks its rule.
        """
        resolved = options.resolved(self.preset, mode=mode, picture=picture or (1, 1))
        return self._needs(resolved, clips).plan()

    def _needs(self, options: AnimateOptions, clips: int) -> ClipNeeds:
        residency, networks = self.pipeline.residency, self.pipeline.networks
        return ClipNeeds(
            networks=networks,
            options=options,
            device=self.device,
            budget=self.memory or device_bytes(self.device),
            videos=clips,
            fixed=residency.fixed(networks, self.device),
            measures=residency.measures(self.device),
        )

    def animate(self, image: PictureLike, prompt: str = "", **settings: Any) -> Clip:
        """Animate one picture as the prompt says.

        Args:
            image: a file, a PIL image or an array (h, w, 3).
            settings: fields of `Shot` (`options`, `item`, `sample`) or of `AnimateOptions` (`steps`, `seed`, …).

        Raises:
            InputError: an unreadable picture, or an option that breaks its rule.
        """
        return self.run([shot_of("animate", settings, image=image, prompt=prompt)])[0]

    def interpolate(self, first: PictureLike, last: PictureLike, prompt: str = "", **settings: Any) -> Clip:
        """Fill the time between two pictures; arguments as in `animate`."""
        return self.run([shot_of("interpolate", settings, image=first, last_image=last, prompt=prompt)])[0]

    def interpolate_through(
        self,
        pictures: Sequence[PictureLike],
        prompt: str | Sequence[str] = "",
        *,
        closed: bool = False,
        **settings: Any,
    ) -> Clip:
        """Fill the time between several key pictures, each of which stands in the clip once.

        Args:
            pictures: two or more, each as in `animate`.
            prompt: what happens: one for all gaps, or one for each.
            closed: whether a last gap leads back to the first picture, so that the clip loops.
            settings: as in `animate`; see `KeyShot` for what `frames` counts.

        Raises:
            InputError: as in `animate`; fewer than two pictures, or prompts that don't match the gaps.
        """
        prompts = (prompt,) if isinstance(prompt, str) else tuple(prompt)
        made = shot_of("interpolate", settings, image="")
        return self.run_through(
            KeyShot(
                pictures=tuple(pictures),
                prompts=prompts,
                closed=closed,
                options=made.options,
                item=made.item,
                sample=made.sample,
            )
        )

    def loop(self, image: PictureLike, prompt: str = "", **settings: Any) -> Clip:
        """Animate a picture so that the clip's end runs into its beginning; one frame shorter than asked.

        The network interpolates from the picture to itself, and the last frame, a repeat of the first, is left out.
        """
        return self.run([shot_of("loop", settings, image=image, prompt=prompt)])[0]

    def run(
        self, shots: Sequence[Shot], *, on_step: OnStep | None = None, on_denoised: OnDenoised = None
    ) -> list[Clip]:
        """Make several clips as one batch; each is what it would be alone, up to rounding.

        Args:
            shots: alike in mode and in every option but motion, negative and seed; pictures, prompts and streams may
                differ too.
            on_step: called after each step with the number of steps done and of all; its errors end the run.
            on_denoised: called before it with what the step took for the clean clips, (b, 4, f, h/8, w/8); no copy.

        Raises:
            InputError: no shots, or shots that don't go together.
            MemoryShortageError: memory ran out all the same; its message says what helps. The animator goes on working.
        """
        if not shots:
            raise InputError("shots must hold at least one shot, got none.")
        modes = get_args(Mode)
        unknown = next((shot.mode for shot in shots if shot.mode not in modes), None)
        if unknown is not None:
            raise InputError(f"mode must be one of {', '.join(modes)}, got {unknown!r}.")
        preset = self.preset
        firsts = [read_picture(shot.image) for shot in shots]
        shots = [
            replace(shot, options=shot.options.resolved(preset, mode=shot.mode, picture=(first.height, first.width)))
            for shot, first in zip(shots, firsts, strict=True)
        ]
        check_together(shots)
        lasts = [last_picture(shot, first) for shot, first in zip(shots, firsts, strict=True)]
        endings = [last for last in lasts if last is not None]
        options = shots[0].options
        assert isinstance(options.size, tuple)

        def after_step(pipeline: Any, step: int, timestep: int, tensors: dict[str, Any]) -> dict[str, Any]:
            if on_denoised is not None:
                on_denoised(tensors["denoised"])
            if on_step is not None:
                on_step(step + 1, options.steps or 0)
            return {}

        needs = self._needs(options, len(shots))
        (frames,) = self._run_within(
            needs,
            firsts,
            [shot.prompt for shot in shots],
            last_image=endings or None,
            negative_prompt=[shot.options.negative for shot in shots],
            height=options.size[0],
            width=options.size[1],
            fit=options.fit,
            num_frames=options.frames,
            window=options.window,
            window_stride=options.window_stride,
            num_inference_steps=options.steps,
            sampler=options.sampler,
            guidance_scale=options.guidance,
            image_guidance_scale=options.image_guidance,
            guidance_rescale=options.guidance_rescale,
            guidance_interval=options.guidance_interval,
            eta=options.eta,
            cache=options.cache or 0.0,
            motion=[shot.options.motion or 0 for shot in shots],
            generator=[generator_for(shot.options.seed, item=shot.item, sample=shot.sample) for shot in shots],
            deterministic_image_latents=options.deterministic,
            pin_first_frame=options.pin_first_frame,
            output_type="uint8",
            return_dict=False,
            callback_on_step_end=after_step,
            callback_on_step_end_tensor_inputs=("denoised",),
        )
        assert isinstance(frames, np.ndarray)
        if shots[0].mode == "loop":
            frames = frames[:, :-1]
        pictures = [[first, last] if shot.mode == "interpolate" else [first]
                    for shot, first, last in zip(shots, firsts, lasts, strict=True)]  # fmt: skip
        return [
            Clip(clip, DEFAULT_FPS, self._metadata(shot, used))
            for clip, shot, used in zip(frames, shots, pictures, strict=True)
        ]

    def run_through(self, shot: KeyShot, *, on_step: OnStep | None = None, on_denoised: OnDenoised = None) -> Clip:
        """Make a clip through key pictures, gap by gap.

        Pinned to the same latents, the end of one gap and the beginning of the next are the same frame, and the colours
        on both sides are matched to it.

        Args:
            on_step: called after each step with the number of steps done and of all, over all gaps.
            on_denoised: as in `run`, gap by gap.

        Raises:
            InputError: see `interpolate_through`.
        """
        gaps = shot.gaps()
        pictures = [read_picture(picture) for picture in shot.pictures]
        options = replace(shot.options, pin_first_frame=True, deterministic=True)
        clips: list[Clip] = []

        def after_step(done: int, steps: int) -> None:
            if on_step is not None:
                on_step(len(clips) * steps + done, len(gaps) * steps)

        for gap in gaps:
            part = Shot(
                image=pictures[gap.first],
                last_image=pictures[gap.last],
                prompt=gap.prompt,
                mode="interpolate",
                options=options,
                item=gap.item,
                sample=shot.sample,
            )
            clips += self.run([part], on_step=after_step, on_denoised=on_denoised)
            options = replace(options, size=clips[0].frames.shape[1:3])  # of a size that goes by a picture, the first's
        joined = join_gaps([match_colours(clip.frames) for clip in clips], closed=shot.closed)
        told = shot.metadata(pictures, num_frames=len(clips[0].frames))
        return Clip(joined, DEFAULT_FPS, clips[0].metadata | told)

    def _run_within(self, needs: ClipNeeds, *arguments: Any, **options: Any) -> Any:
        """Call the pipeline as its memory plan says, and leave it fit for the next call where memory runs out."""
        plan = needs.plan()
        logger.info("memory plan: %s", plan.as_dict())
        try:
            self.pipeline.follow(plan, self.device)
            made = self.pipeline(*arguments, **options)
            give_back_heap()  # for as long as nobody asks for more
            return made
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # Not in the handler, where the error still holds all that the run had allocated.
        self.pipeline.follow(None, self.device)
        release(self.device)
        advice = remedy(needs, free=free_bytes(self.device))
        raise MemoryShortageError(f"out of memory on {self.device}; {advice}.")

    def _metadata(self, shot: Shot, pictures: Sequence[Image.Image | None]) -> dict[str, Any]:
        plan = self.pipeline.residency.plan
        sources = [shot.image, shot.last_image] if shot.mode == "interpolate" else [shot.image]
        return {
            "generator": f"dynamicrafter {dynamicrafter.__version__}",
            "mode": shot.mode,
            "model": {"name": self.model, "preset": self.preset.name, "hash": self.model_hash},
            "lora": [adapter.as_dict() for adapter in self.loras],
            "prompt": shot.prompt,
            "pictures": stored_pictures(sources, pictures),
            "options": shot.options.as_dict(),
            "item": shot.item,
            "sample": shot.sample,
            "device": self.device.type,
            "dtype": str(self.pipeline.unet.dtype).removeprefix("torch."),
            "memory": [] if plan is None else [name for name in plan.measures if name in INEXACT],
            "torch": torch.__version__,
        }


def _hash_of(pipeline: DynamiCrafterPipeline) -> str:
    source = pipeline.config.get("_name_or_path")
    return fingerprint(source) if source and Path(source).exists() else ""


def _weight_bytes(pipeline: DynamiCrafterPipeline) -> int:
    return sum(parameter.nbytes for network in pipeline.networks.values() for parameter in network.parameters())
