"""The steps of the recipe, each a public method that can be called, replaced or watched on its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from einops import repeat
from torch import Generator, Tensor
from transformers import CLIPTextModel, CLIPVisionModel

from dynamicrafter.architectures import CLIP_PIXELS
from dynamicrafter.errors import InputError
from dynamicrafter.guidance import PassPlan, combine
from dynamicrafter.kernels.transfer import send
from dynamicrafter.media.clip_pixels import clip_pixels
from dynamicrafter.memory.advice import is_out_of_memory
from dynamicrafter.memory.plan import CONDITIONERS
from dynamicrafter.memory.tiles import Autoencoder, pixels_of_a_latent
from dynamicrafter.models.patch_autoencoder import PatchAutoencoder
from dynamicrafter.models.projector import ImageProjector
from dynamicrafter.models.toon_autoencoder import ToonAutoencoder
from dynamicrafter.models.unet import DynamiCrafterUNet
from dynamicrafter.models.windows import TimeWindows
from dynamicrafter.pipeline.autoencoder import decode_frames, decode_toon, encode_pictures
from dynamicrafter.pipeline.inputs import changed_latents
from dynamicrafter.pipeline.long_clips import ShuffledNoise, spread_context
from dynamicrafter.pipeline.offloading import OffloadedPipeline
from dynamicrafter.pipeline.passes import PassContexts, RunMemory, project_passes
from dynamicrafter.pipeline.pinning import PinnedFrames
from dynamicrafter.pipeline.variations import USUAL, Variations
from dynamicrafter.presets import NUM_FRAMES
from dynamicrafter.randomness import draw
from dynamicrafter.schedulers.ddim import DynamiCrafterScheduler
from dynamicrafter.text.tokenizer import tokenize

logger = logging.getLogger(__name__)

Generators = Generator | Sequence[Generator] | None
Batching = Literal["auto", "together", "separate"]
BATCHINGS: tuple[Batching, ...] = ("auto", "together", "separate")
OnStepEnd = Callable[[Any, int, int, dict[str, Any]], dict[str, Any] | None]


class PipelineSteps(OffloadedPipeline):
    """The methods behind `DynamiCrafterPipeline`'s call, over its registered components."""

    vae: Autoencoder
    text_encoder: CLIPTextModel | None
    image_encoder: CLIPVisionModel | None
    image_projector: ImageProjector | None
    unet: DynamiCrafterUNet
    scheduler: DynamiCrafterScheduler

    @property
    def _tiled(self) -> bool:
        plan = self.offloader.plan
        return plan is not None and "tiles" in plan.measures

    @property
    def vae_scale_factor(self) -> int:
        """Pixels along one side of a latent."""
        return pixels_of_a_latent(self.vae)

    @torch.no_grad()
    def encode_prompt(self, prompts: Sequence[str]) -> Tensor:
        """Text context of prompts, (b, 77, c); what exceeds 75 tokens is cut, with a warning that shows it.

        A text encoder that was made for fewer than 77 tokens gets and gives as many as that.

        Raises:
            InputError: the pipeline has no text encoder.
        """
        if self.text_encoder is None:
            raise InputError(
                "prompt can't be encoded, as this pipeline has no text_encoder; pass prompt_embeds instead."
            )
        length = self.text_encoder.config.max_position_embeddings
        tokens = tokenize(prompts, length=length)
        for rest in dict.fromkeys(tokens.cut):
            if rest is not None:
                logger.warning("The prompt is longer than %d tokens; this part is not read: %s", length - 2, rest)
        # Videos of one batch often share a prompt, and nearly always the negative one.
        ids, places = tokens.ids.unique(dim=0, return_inverse=True)
        self.onload(*CONDITIONERS)
        return self.text_encoder(ids.to(self._execution_device)).last_hidden_state[places]

    @torch.no_grad()
    def encode_image(self, pixels: Tensor, num_frames: int = NUM_FRAMES, windows: TimeWindows | None = None) -> Tensor:
        """Image context of pictures (b, 3, h, w) in [-1, 1]: (b, f, m, c), m tokens for each frame.

        Where frames share their tokens, it is (b, 1, m, c) for clips of any length. Else clips longer than a window
        take the tokens of one of its length; see `spread_context`.
        """
        assert self.image_encoder is not None
        assert self.image_projector is not None
        self.onload(*CONDITIONERS)
        inputs = clip_pixels(pixels.to(self._execution_device)).to(self.image_encoder.dtype)
        tokens = self.image_encoder(pixel_values=inputs).last_hidden_state
        at_once = num_frames if windows is None else windows.size
        context = self.image_projector(tokens.to(self.image_projector.dtype), at_once)
        shared = self.image_projector.config["num_frames"] == 1
        return context if windows is None or shared else spread_context(context, num_frames, windows)

    @torch.no_grad()
    def encode_image_latents(
        self,
        pixels: Tensor,
        generator: Generators = None,
        *,
        noise: Tensor | None = None,
        deterministic: bool = False,
    ) -> Tensor:
        """Latents of pictures, a sample of the autoencoder's posterior.

        Args:
            pixels: (b, 3, h, w) in [-1, 1].
            generator: draws the sample's noise, unless `noise` (b, 4, h/8, w/8) is given.
            deterministic: the posterior's mean, with no noise.

        Returns:
            (b, 4, h/8, w/8), float32, scaled as the UNet expects.
        """
        self.onload("vae")
        pixels = pixels.to(self._execution_device)
        if deterministic:
            return encode_pictures(self.vae, pixels, None, tiled=self._tiled)
        factor = self.vae_scale_factor
        shape = (len(pixels), self.vae.config["latent_channels"], pixels.shape[2] // factor, pixels.shape[3] // factor)
        noise = draw(shape, generator) if noise is None else noise
        return encode_pictures(self.vae, pixels, noise, tiled=self._tiled)

    def place_image_latents(self, first: Tensor, last: Tensor | None, num_frames: int) -> Tensor:
        """What each frame is conditioned on, (b, 4, f, h, w).

        Args:
            first: (b, 4, h, w); alone, it stands on every frame.
            last: (b, 4, h, w); given, only the first and the last frame are conditioned, each on its own picture, and
                the others are zero, or what the autoencoder lets stand in for them.
        """
        if last is None:
            return repeat(first, "b c h w -> b c f h w", f=num_frames)
        placed = first.new_zeros(*first.shape[:2], num_frames, *first.shape[2:])
        if isinstance(self.vae, PatchAutoencoder) and self.vae.carries:
            half = (num_frames + 1) // 2
            placed[:, :, :half] = self.vae.stand_in(first)[:, :, None]
            placed[:, :, half:] = self.vae.stand_in(last)[:, :, None]
        placed[:, :, 0] = first
        placed[:, :, -1] = last
        return placed

    def prepare_latents(
        self,
        count: int,
        num_frames: int,
        height: int,
        width: int,
        generator: Generators = None,
        latents: Tensor | None = None,
        *,
        shuffled: ShuffledNoise | None = None,
    ) -> Tensor:
        """Noise to start from, (b, 4, f, h/8, w/8), float32; `latents` are checked and used where given.

        Args:
            shuffled: for a clip of several windows, how the first one's noise comes again in the others.

        Raises:
            InputError: latents of another shape.
        """
        factor = self.vae_scale_factor
        shape = (count, self.unet.config["out_channels"], num_frames, height // factor, width // factor)
        if latents is None:
            latents = draw(shape, generator) if shuffled is None else shuffled.draw(shape, generator)
        elif tuple(latents.shape) != shape:
            raise InputError(f"latents must have the shape {shape}, got {tuple(latents.shape)}.")
        return latents.to(self._execution_device, torch.float32) * self.scheduler.init_noise_sigma

    @torch.no_grad()
    def prepare_contexts(
        self,
        passes: Sequence[str],
        *,
        text: Tensor,
        negative_text: Callable[[], Tensor],
        image: Tensor | None,
        text_by_frame: Tensor | None = None,
        num_frames: int = NUM_FRAMES,
        windows: TimeWindows | None = None,
        batching: Batching = "auto",
        latent_size: tuple[int, int],
    ) -> PassContexts:
        """Keys and values of every pass, constant over the run.

        Args:
            passes: of the guidance plan: "conditional", "image" (picture without prompt), "unconditional".
            text, image: context of prompt (b, 77, c) and picture (b, f, m, c); None where the model reads no picture.
            text_by_frame: of each frame, (b·f, 77, c), for the conditional pass where prompts change on the way.
            num_frames: of the clip.
            negative_text: makes the context of the empty or negative prompt; called only where a pass needs it.
            windows: of a long clip, as `image` was made for.
            batching, latent_size: as in `__call__`; decide whether the passes go through the UNet as one batch.
        """
        sources: dict[str, tuple[Tensor, Tensor | None]] = {}
        empty = negative_text() if set(passes) != {"conditional"} else text
        for name in passes:
            match name:
                case "conditional":
                    sources[name] = (text if text_by_frame is None else text_by_frame, image)
                case "image":
                    sources[name] = (empty, image)
                case _:
                    grey = torch.zeros(1, 3, CLIP_PIXELS, CLIP_PIXELS)
                    nothing = None if image is None else self.encode_image(grey, num_frames, windows).expand_as(image)
                    sources[name] = (empty, nothing)
        plan = self.offloader.plan or self.plan_memory(
            height=latent_size[0] * self.vae_scale_factor,
            width=latent_size[1] * self.vae_scale_factor,
            num_frames=num_frames,
            passes=len(passes),
            videos=len(text),
        )
        together = plan.together if batching == "auto" else batching == "together"
        self.onload("unet")
        kind = self.unet.dtype
        sources = {name: (t.to(kind), None if i is None else i.to(kind)) for name, (t, i) in sources.items()}
        return project_passes(self.unet, sources, together=together, windows=windows)

    @torch.no_grad()
    def denoise(
        self,
        latents: Tensor,
        image_latents: Tensor | None,
        contexts: PassContexts,
        plan: PassPlan,
        *,
        motion: Tensor,
        eta: float,
        cache: float = 0.0,
        generator: Generators = None,
        shuffled: ShuffledNoise | None = None,
        step_noise: Sequence[Tensor] | None = None,
        pinned: PinnedFrames | None = None,
        variations: Variations = USUAL,
        on_step_end: OnStepEnd | None = None,
        tensor_inputs: Sequence[str] = ("latents",),
        shown: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Walk the scheduler's timesteps from noise to clean latents, by the sampler that was chosen with them.

        Args:
            latents, image_latents: (b, 4, f, h, w), float32; no image latents where the UNet takes none.
            contexts, plan: the guidance passes, as `prepare_contexts` and `plan_passes` give them.
            motion: (b,).
            shuffled: how the noise of a step, where eta > 0, is made of one window's; as the starting noise was.
            eta, cache: as in `__call__`.
            step_noise: for each step (b, 4, f, h, w), instead of the generator's.
            pinned: frames that are known, and held to that.
            variations: how steps differ from the usual ones.
            on_step_end, tensor_inputs: as in `__call__`.
            shown: more tensors that `on_step_end` may ask for, and must leave as they are.

        Returns:
            (b, 4, f, h, w), float32.
        """
        motion = motion.to(latents.device)
        if pinned is not None:
            latents = pinned.begin(latents, self.scheduler)
        memory = RunMemory(cache)
        self._plan, self._guidance_scale, self._num_timesteps = plan, plan.guidance, len(self.scheduler.timesteps)
        contexts = contexts.separate() if cache > 0 else contexts
        with self.progress_bar(total=len(self.scheduler.timesteps)) as bar:
            for index, timestep in enumerate(self.scheduler.timesteps.tolist()):
                self.onload("unet")  # in every step, for a callback may have decoded in between
                noise = self._step_noise(latents, index, eta, generator, shuffled, step_noise)
                sample = latents if image_latents is None else torch.cat([latents, image_latents], dim=1)
                sample = sample.to(self.unet.dtype)
                outputs, quieter, now = None, None, self._plan_now().at(timestep)
                step = partial(
                    variations.run_step, self.unet, sample, timestep, motion, step=index, latents=latents, memory=memory
                )
                try:
                    outputs, quieter = step(contexts=contexts, names=now.passes)
                except RuntimeError as error:
                    if not is_out_of_memory(error) or len(contexts.groups) == len(contexts.names):
                        raise
                if outputs is None:  # not in the handler, where the error still holds all that the batch had allocated
                    logger.warning("The guidance passes don't fit into memory as one batch; going on one by one.")
                    contexts = contexts.separate()
                    outputs, quieter = step(contexts=contexts, names=now.passes)
                guided = combine(outputs, now, damped=quieter)
                if pinned is not None:
                    guided = pinned.answer(guided, latents, timestep, self.scheduler)
                latents, denoised = self.scheduler.step(
                    guided, timestep, latents, eta=eta, noise=noise, return_dict=False
                )
                if on_step_end is not None:
                    tensors = {"latents": latents, "denoised": denoised, **(shown or {})}
                    changed = on_step_end(self, index, timestep, {name: tensors.get(name) for name in tensor_inputs})
                    latents = changed_latents(changed or {}, latents, shown or {})
                bar.update()
                if self._interrupt:
                    break
        return latents if pinned is None else pinned.end(latents, self.scheduler)

    @staticmethod
    def _step_noise(
        latents: Tensor,
        index: int,
        eta: float,
        generator: Generators,
        shuffled: ShuffledNoise | None,
        given: Sequence[Tensor] | None,
    ) -> Tensor | None:
        """The fresh noise of a step, on its way to the device before the networks are called; None where there is none.

        Drawn afterwards, the device would wait for it.
        """
        if eta == 0:
            return None
        if given is not None:
            return given[index]
        drawn = draw(latents.shape, generator) if shuffled is None else shuffled.draw(latents.shape, generator)
        return send(drawn, latents.device)

    @torch.no_grad()
    def decode_latents(
        self, latents: Tensor, *, chunk_size: int | None = None, pictures: Tensor | None = None
    ) -> Tensor:
        """Frames of latents (b, 4, f, h, w): (b, 3, f, 8h, 8w), float32, about [-1, 1], not clamped.

        Args:
            chunk_size: frames decoded at a time; None for one, or as many as the memory plan counts. Frames don't see
                each other in the decoder, but in ToonCrafter's, which decodes as many as it was trained on.
            pictures: the first and the last of each clip, (b, 2, 3, 8h, 8w) in [-1, 1], for ToonCrafter's decoder.
        """
        self.onload("vae")
        latents = latents.to(self._execution_device)
        if isinstance(self.vae, ToonAutoencoder) and pictures is not None:
            return decode_toon(self.vae, latents, pictures.to(self._execution_device), tiled=self._tiled)
        plan = self.offloader.plan
        planned = 1 if plan is None else plan.decode_chunk_size
        return decode_frames(self.vae, latents, chunk_size=chunk_size or planned, tiled=self._tiled)
