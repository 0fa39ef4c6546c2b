"""`DynamiCrafterPipeline`: text, picture and noise in, frames out, with a public method for every step.

1. encode_prompt          prompts                → text context (b, 77, c)
2. encode_image           pixels                 → image context (b, f, m, c)
3. encode_image_latents   pixels                 → latents of the picture (b, 4, h, w)
   place_image_latents    those                  → what each frame is conditioned on (b, 4, f, h, w)
4. prepare_latents        generators             → noise (b, 4, f, h, w)
5. prepare_contexts       1 and 2                → keys and values for each guidance pass
6. denoise                all of these           → clean latents (b, 4, f, h, w)
7. decode_latents         those                  → frames (b, 3, f, 8h, 8w)
"""

# No `from __future__ import annotations`: diffusers checks components against the annotations of __init__ as objects.
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.utils import BaseOutput
from torch import Tensor
from transformers import CLIPTextModel, CLIPVisionModel

from dynamicrafter.checkpoints.networks import Dtypes, dtype_for
from dynamicrafter.errors import InputError
from dynamicrafter.guidance import plan_passes
from dynamicrafter.hub import resolve
from dynamicrafter.kernels.precision import in_full_float32
from dynamicrafter.media.fit import Fit
from dynamicrafter.memory.offload import Offloader
from dynamicrafter.memory.reload import Reload, remember_source
from dynamicrafter.models.patch_autoencoder import PatchAutoencoder
from dynamicrafter.models.projector import ImageProjector
from dynamicrafter.models.sketch_encoder import SketchEncoder
from dynamicrafter.models.toon_autoencoder import ToonAutoencoder
from dynamicrafter.models.unet import DynamiCrafterUNet
from dynamicrafter.pipeline.folders import check_folder
from dynamicrafter.pipeline.inputs import (
    OUTPUT_TYPES,
    OutputType,
    Pictures,
    as_dtypes,
    as_motion,
    as_pixels,
    as_prompts,
    callback_inputs,
    check_at_least_one,
    check_choice,
    check_embeds,
    check_embeds_given,
    check_frames,
    check_generators,
    check_pictures,
    count_videos,
)
from dynamicrafter.pipeline.loading import (
    SEEDED,
    check_lazy_options,
    check_options,
    file_components,
    folder_components,
    folder_origin,
    seeded_components,
)
from dynamicrafter.pipeline.long_clips import ShuffledNoise, plan_windows
from dynamicrafter.pipeline.lora_loader import DynamiCrafterLoraLoader
from dynamicrafter.pipeline.outputs import Frames, convert_frames
from dynamicrafter.pipeline.pinning import PinnedFrames
from dynamicrafter.pipeline.run_lock import one_run_at_a_time
from dynamicrafter.pipeline.sketches import SKETCH_SCALE, Drawing, read_sketches
from dynamicrafter.pipeline.steps import BATCHINGS, Batching, Generators, OnStepEnd, PipelineSteps
from dynamicrafter.pipeline.variations import (
    Variations,
    changing_text,
    dilation_for,
    injecting_contexts,
    sketch_guide,
)
from dynamicrafter.presets import (
    NUM_FRAMES,
    WINDOW_STRIDE,
    check_cache,
    check_frame_size,
)
from dynamicrafter.samplers import Sampler, check_eta
from dynamicrafter.schedulers.ddim import DynamiCrafterScheduler
from dynamicrafter.schedulers.initial_noise import InitialNoise


@dataclass
class DynamiCrafterPipelineOutput(BaseOutput):
    """`frames`: see `output_type` of the call."""

    frames: Frames


class DynamiCrafterPipeline(PipelineSteps, DynamiCrafterLoraLoader):
    """Animates pictures, or fills the time between two (arXiv:2310.12190).

    Args:
        vae: autoencoder with encode and decode; one that was made for the same latents, such as TAESD, is faster.
        text_encoder, image_encoder: CLIP's towers; the text tower without its last layer, or None where embeddings
            stand for all prompts.
        image_projector: image tokens to context tokens for each frame. It and the image encoder are None for a model
            that makes clips from text alone.
        unet: the denoiser.
        scheduler: noise schedule and sampler.
        preset: the released checkpoint it descends from, as a dictionary of `Preset`'s fields; None for that of the
            pipeline which the UNet comes from.

    Raises:
        InputError: another scheduler than ours.
    """

    model_cpu_offload_seq = "text_encoder->image_encoder->image_projector->unet->vae"
    _optional_components = ["text_encoder", "image_encoder", "image_projector"]  # noqa: RUF012 diffusers declares it so
    _callback_tensor_inputs = ("latents", "denoised", "prompt_embeds", "negative_prompt_embeds")

    def __init__(
        self,
        vae: AutoencoderKL | AutoencoderTiny | PatchAutoencoder | ToonAutoencoder,
        text_encoder: CLIPTextModel | None,
        image_encoder: CLIPVisionModel | None,
        image_projector: ImageProjector | None,
        unet: DynamiCrafterUNet,
        scheduler: DynamiCrafterScheduler,
        preset: dict | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            image_encoder=image_encoder,
            image_projector=image_projector,
            unet=unet,
            scheduler=scheduler,
        )
        self.register_to_config(preset=self._hand_on_preset(unet, preset))
        self.offloader = Offloader()
        self.sketch_encoder: SketchEncoder | None = None  # beside the components, as it has a file of its own

    @classmethod
    # pyrefly: ignore [bad-override-param-name]
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        dtype: str | Dtypes = None,
        torch_dtype: str | Dtypes = None,
        download: bool = False,
        lazy: bool = False,
        **options: Any,
    ) -> "DynamiCrafterPipeline":
        """Load a model by any of its names; nothing is downloaded unasked.

        Args:
            name: a preset ("512"), a folder that `save_pretrained` wrote, a checkpoint file, a repository of either on
                the hub, or "seeded:tiny" and the like.
            dtype: of the parameters, or its name; a dictionary goes by component, with an optional "default"; None
                keeps a file's own, and stands for float32 with a folder, as in diffusers.
            torch_dtype: the same, by the name that diffusers used before.
            download: fetch what is not on this machine.
            lazy: read each network's weights when they are first needed; `apply_plan` then names the device, not `to`.
            options: for a folder diffusers' own (`variant`, components, …); for a file `preset` and `encoders`.

        Raises:
            ModelNotFoundError: not on this machine.
            InputError: an option that the model doesn't know, or brings itself.
            CheckpointError: unreadable or misfitting weights.
        """
        dtype = as_dtypes(torch_dtype if dtype is None else dtype)
        if str(name).startswith(SEEDED):
            check_options(str(name), options, known=())
            return cls._with_origin(*seeded_components(str(name), dtype=dtype, lazy=lazy))
        model = resolve(str(name), download=download)
        if model.kind == "folder":
            check_options(str(name), options)
            if dtype is None or isinstance(dtype, torch.dtype):
                # Without a word, diffusers would load its networks in float32 and transformers its own as they are.
                default = dtype or torch.float32
                dtype = {"default": default, "vae": dtype_for("vae", default) or default}
            options["dtype"] = dtype
            variant = options.get("variant")
            check_folder(model.path, given=options, variant=variant)
            if lazy:
                given = check_lazy_options(options)
                components = folder_components(model.path, dtype=options["dtype"], variant=variant, given=given)
                pipeline = cls._with_origin(*components, given=given)
                pipeline.register_to_config(_name_or_path=str(model.path))
                return pipeline
            pipeline = super().from_pretrained(str(model.path), **options | {"use_safetensors": True})
            if options.get("quantization_config") is None:  # else the folder holds other weights than the networks
                pipeline._remember(folder_origin(model.path, dtype=dtype, variant=variant), given=options)
            return pipeline
        check_options(str(name), options, known=("preset", "encoders"))
        if model.path != Path(name).expanduser():  # of a file, its own name is no more than a hint
            options.setdefault("preset", model.preset)
        return cls.from_single_file(model.path, dtype=dtype, download=download, lazy=lazy, **options)

    @classmethod
    def from_single_file(
        cls,
        path: str | Path,
        *,
        preset: str | None = None,
        dtype: str | Dtypes = None,
        torch_dtype: str | Dtypes = None,
        encoders: str | Path | None = None,
        download: bool = False,
        lazy: bool = False,
    ) -> "DynamiCrafterPipeline":
        """Load a published, pruned or fine-tuned checkpoint file.

        Args:
            path: `.ckpt` or `.safetensors`.
            preset: which released checkpoint it descends from, where the file alone can't tell.
            dtype, torch_dtype: of the parameters, as in `from_pretrained`.
            encoders: file or folder with CLIP's towers for a file without.
            download: fetch the towers where they are lacking.
            lazy: read each network's weights when they are first needed.

        Raises:
            CheckpointError: unreadable, not DynamiCrafter, of unclear preset, or a misfit.
        """
        dtype = as_dtypes(torch_dtype if dtype is None else dtype)
        components = file_components(
            Path(path), preset=preset, dtype=dtype, encoders=encoders, download=download, lazy=lazy
        )
        pipeline = cls._with_origin(*components)
        pipeline.register_to_config(_name_or_path=str(path))
        return pipeline

    @classmethod
    def _with_origin(
        cls, components: dict[str, Any], origin: Reload, *, given: Collection[str] = ()
    ) -> "DynamiCrafterPipeline":
        pipeline = cls(**components)
        pipeline._remember(origin, given=given)
        return pipeline

    def _remember(self, origin: Reload, *, given: Collection[str] = ()) -> None:
        """Remember where the networks can be read again, apart from those that the user gave."""
        for name, network in self.networks.items():
            if name not in given:
                remember_source(network, partial(origin, name))

    def save_pretrained(self, save_directory: str | Path, *args: Any, **options: Any) -> None:
        """Write a folder that `from_pretrained` reads, as diffusers does.

        Raises:
            InputError: adapters are on that were not fused.
        """
        with self._plain_unet():
            self.unet.check_savable()
            super().save_pretrained(save_directory, *args, **options)

    @one_run_at_a_time
    @in_full_float32
    @torch.no_grad()
    def __call__(
        self,
        image: Pictures | None = None,
        prompt: str | Sequence[str] | None = None,
        *,
        last_image: Pictures | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        fit: Fit = "cover",
        num_frames: int = NUM_FRAMES,
        window: int = NUM_FRAMES,
        window_stride: int = WINDOW_STRIDE,
        num_inference_steps: int | None = None,
        sampler: Sampler | None = None,
        guidance_scale: float | None = None,
        image_guidance_scale: float | None = None,
        guidance_rescale: float | None = None,
        guidance_interval: tuple[int, int] | None = None,
        eta: float | None = None,
        cache: float = 0.0,
        motion: int | Sequence[int] | None = None,
        num_videos_per_prompt: int = 1,
        generator: Generators = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        deterministic_image_latents: bool = False,
        pin_first_frame: bool = False,
        start_step: int | None = None,
        larger: bool = False,
        prompt_changes: Mapping[int, str] | None = None,
        sketches: Sequence[Drawing] | None = None,
        sketch_scale: float = SKETCH_SCALE,
        initial_noise: InitialNoise | None = None,
        guidance_batching: Batching = "auto",
        decode_chunk_size: int | None = None,
        output_type: OutputType = "pil",
        return_dict: bool = True,
        callback_on_step_end: OnStepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> DynamiCrafterPipelineOutput | tuple[Frames]:
        """Make videos. What is None comes from the preset.

        Args:
            image: the picture to animate, or several; see `as_pixels` for types and ranges. None for a model that makes
                clips from text alone.
            prompt: what happens; one for all videos or one each. As many videos are made as there are images or
                prompts, times `num_videos_per_prompt`.
            last_image: the picture to end on; given, the clip interpolates from `image` to it.
            negative_prompt: what to steer away from, in place of the empty prompt.
            height, width: multiples of 64 pixels.
            fit: how a picture of another shape fills the frame: cover, contain or stretch.
            num_frames: 1 to 512.
            window: frames that temporal attention sees at once, at most the number that the UNet was trained for; a
                longer clip is made of windows that overlap (arXiv:2310.15169).
            window_stride: frames from one window's beginning to the next one's.
            num_inference_steps: 1 to 1000.
            sampler: ddim, as published; dpm++ and unipc, which need fewer steps; dpm++sde, with fresh noise.
            guidance_scale: how much more the prompt (and, without a scale of its own, the image) weighs than nothing;
                1 switches guidance and its cost off.
            image_guidance_scale: the same for the image alone.
            guidance_rescale: 0 … 1, how far guidance is kept from raising the contrast (arXiv:2305.08891, §3.4).
            eta: 0 (deterministic) … 1 (as much fresh noise as DDPM); dpm++ and unipc take 0 only.
            guidance_interval: first and last timestep, 0 to 999, at which guidance works; at others the conditional
                pass runs alone (arXiv:2404.07724). None for all.
            cache: 0 … 1; above 0, deep features of the UNet are used again until what they come from has changed by
                this share (arXiv:2312.00858).
            motion: the preset's motion number: a frame stride or frames per second.
            generator: one for everything, or one for each video, which then depends on neither place nor batch.
            latents: (b, 4, f, h/8, w/8), noise to start from instead of the generator's.
            prompt_embeds, negative_prompt_embeds: (b, 77, c), in place of the prompts; needed where there is no text
                encoder.
            deterministic_image_latents: condition on the posterior's mean instead of a sample of it.
            pin_first_frame: hold the first frame to `image` at every step, and the last to `last_image` if given.
            start_step: of the 1000 training timesteps how many, from the quietest, the steps are spread over; fewer let
                more move, and too few spoil the picture (arXiv:2406.15735, §4.1). None for all.
            initial_noise: what clean latents are like, from which the start below full noise follows; of the clip's
                frames and size. None for N(0, 1).
            larger: let deep convolutions look further at the noisy steps, for frames of more pixels than the preset's
                (arXiv:2310.07702); see `plan_dilation`. Frames that are hardly larger stay as they are.
            prompt_changes: by frame, what holds from there on in place of the prompt, which then must be one; see
                `text_by_frame` (arXiv:2310.15169, §3.4).
            sketches: drawings in dark lines on white, one for each frame (None for a frame without), that guide it;
                needs `sketch_encoder`.
            sketch_scale: 0 … 1, how much they count.
            guidance_batching: the passes of a step as one batch ("together"), one after the other ("separate"), or
                as memory allows; the result differs by rounding only.
            decode_chunk_size: frames decoded at a time.
            output_type: "pil" (a list of PIL images for each video), "np" (b, f, h, w, 3) in [0, 1], "pt"
                (b, f, 3, h, w) in [0, 1], "uint8" (b, f, h, w, 3), or "latent" (b, 4, f, h/8, w/8).
            callback_on_step_end: called as (pipeline, step, timestep, tensors); may return {"latents": …} to go on
                with, and set `pipeline._guidance_scale` or `pipeline._interrupt`.
            callback_on_step_end_tensor_inputs: what it gets: "latents"; "denoised", what the step took for the clean
                clip; both (b, 4, f, h/8, w/8); "prompt_embeds", "negative_prompt_embeds". An object of diffusers'
                `PipelineCallback` names its own.

        Raises:
            InputError: an argument breaks its rule.
        """
        preset = self.preset
        check_pictures(self.unet, self.vae, image, last_image, image_guidance_scale, pinned=pin_first_frame)
        height = preset.height if height is None else height
        width = preset.width if width is None else width
        steps = preset.steps if num_inference_steps is None else num_inference_steps
        check_frame_size(height, width)
        check_frames(num_frames, least=1 if last_image is None else 2)
        windows = plan_windows(
            num_frames,
            window=window,
            stride=window_stride,
            max_frames=self.unet.config["max_frames"],
            anchors=() if last_image is None else (0, num_frames - 1),
        )
        check_at_least_one("num_videos_per_prompt", num_videos_per_prompt)
        check_at_least_one("decode_chunk_size", 1 if decode_chunk_size is None else decode_chunk_size)
        check_choice("output_type", output_type, OUTPUT_TYPES)
        check_choice("guidance_batching", guidance_batching, BATCHINGS)
        tensor_inputs = callback_inputs(
            callback_on_step_end, callback_on_step_end_tensor_inputs, self._callback_tensor_inputs
        )
        check_generators(generator)
        guidance = preset.guidance if guidance_scale is None else guidance_scale
        rescale = preset.guidance_rescale if guidance_rescale is None else guidance_rescale
        sampler = preset.sampler if sampler is None else sampler
        eta = preset.eta_for(sampler) if eta is None else eta
        check_eta(eta, sampler)
        check_cache(cache)
        plan = plan_passes(guidance, image_guidance_scale, rescale=rescale, interval=guidance_interval)
        if self.text_encoder is None:
            check_embeds_given(prompt_embeds, negative_prompt_embeds, guided=set(plan.passes) != {"conditional"})
        self.scheduler.set_timesteps(steps, sampler=sampler, start_step=start_step)
        self._interrupt = False

        first = None if image is None else as_pixels(image, height=height, width=width, fit=fit)
        last = (
            None
            if last_image is None
            else as_pixels(last_image, height=height, width=width, fit=fit, name="last_image")
        )
        count = count_videos(first, last, prompt, prompt_embeds)
        videos = count * num_videos_per_prompt
        motions = as_motion(preset.motion.default if motion is None else motion, count=videos)

        def each(tensor: Tensor) -> Tensor:
            """One row for every video, several videos of one prompt side by side."""
            whole = tensor.expand(count, *tensor.shape[1:]) if tensor.shape[0] == 1 else tensor
            return whole.repeat_interleave(num_videos_per_prompt, dim=0)

        shuffled = None
        if windows is not None:
            shuffled = ShuffledNoise.draw_order(videos, num_frames, windows, generator)
        noise = self.prepare_latents(videos, num_frames, height, width, generator, latents, shuffled=shuffled)
        if initial_noise is not None:
            noise = initial_noise.start(noise, self.scheduler.level(int(self.scheduler.timesteps[0])))
        ends = [each(picture) for picture in (first, last) if picture is not None]
        image_latents, pinned = self._latents_of(
            ends, num_frames, generator, deterministic=deterministic_image_latents, pin=pin_first_frame
        )
        embeds = {"prompt_embeds": each(self._embeds(prompt, prompt_embeds, count, "prompt"))}

        def negative() -> Tensor:
            if "negative_prompt_embeds" not in embeds:
                made = self._embeds(negative_prompt, negative_prompt_embeds, count, "negative_prompt")
                embeds["negative_prompt_embeds"] = each(made)
            return embeds["negative_prompt_embeds"]

        image_context = None if first is None else each(self.encode_image(first, num_frames, windows))
        changing = None
        if prompt_changes is not None:
            changing = changing_text(self, prompt, prompt_changes, num_frames=num_frames, num_videos=videos)
        apart = changing is not None or sketches is not None
        contexts = self.prepare_contexts(
            plan.passes,
            text=embeds["prompt_embeds"],
            text_by_frame=None if changing is None else changing.by_frame,
            negative_text=negative,
            image=image_context,
            num_frames=num_frames,
            windows=windows,
            batching="separate" if apart else guidance_batching,
            latent_size=(noise.shape[3], noise.shape[4]),
        )
        guide = None
        if sketches is not None:
            drawn = read_sketches(sketches, num_frames=num_frames, height=height, width=width, fit=fit)
            texts = {"conditional": embeds["prompt_embeds"]}
            if "negative_prompt_embeds" in embeds:
                texts["unconditional"] = texts["image"] = embeds["negative_prompt_embeds"]
            guide = sketch_guide(self, drawn, texts, scale=sketch_scale)
        variations = Variations(
            dilation=dilation_for(self, size=(height, width)) if larger else None,
            injecting=None if changing is None else injecting_contexts(self, contexts, changing, image_context),
            sketch=guide,
        )
        variations.check(cache=cache)
        clean = self.denoise(
            noise,
            image_latents,
            contexts,
            plan,
            motion=motions,
            eta=eta,
            cache=cache,
            generator=generator,
            pinned=pinned,
            shuffled=shuffled,
            variations=variations,
            on_step_end=callback_on_step_end,
            tensor_inputs=tensor_inputs,
            shown=embeds,
        )
        frames: Frames = clean
        if output_type != "latent":
            pictures = None if last is None else torch.stack(ends, dim=1)
            decoded = self.decode_latents(clean, chunk_size=decode_chunk_size, pictures=pictures)
            frames = convert_frames(decoded, output_type)
        self.maybe_free_model_hooks()
        return DynamiCrafterPipelineOutput(frames=frames) if return_dict else (frames,)

    def _latents_of(
        self, ends: Sequence[Tensor], num_frames: int, generator: Generators, *, deterministic: bool, pin: bool
    ) -> tuple[Tensor | None, PinnedFrames | None]:
        """What stands beside the noise, and what frames are held to, of the pictures (b, 3, h, w) that there are."""
        if not ends or not (self.unet.takes_image_latents or pin):
            return None, None
        first, *rest = (self.encode_image_latents(each, generator, deterministic=deterministic) for each in ends)
        last = rest[0] if rest else None
        beside = self.place_image_latents(first, last, num_frames) if self.unet.takes_image_latents else None
        return beside, PinnedFrames.at_ends(first, last, num_frames) if pin else None

    def _embeds(self, prompt: str | Sequence[str] | None, embeds: Tensor | None, count: int, name: str) -> Tensor:
        """Text context from embeddings where they are given, else from prompts."""
        if embeds is None:
            return self.encode_prompt(as_prompts(prompt, count=count, name=name))
        if prompt is not None:
            raise InputError(f"{name} and {name}_embeds exclude each other; leave one out.")
        length = embeds.shape[1] if self.text_encoder is None else self.text_encoder.config.max_position_embeddings
        width = self.unet.config["cross_attention_dim"]
        check_embeds(f"{name}_embeds", embeds, count=count, length=length, width=width)
        return embeds.to(self._execution_device)
