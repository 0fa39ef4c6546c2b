"""What users of diffusers do with a pipeline beside running it: exchange its parts, offload it, look into a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.hooks import apply_group_offloading
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import nn

from dynamicrafter.errors import InputError
from dynamicrafter.guidance import UNGUIDED, PassPlan
from dynamicrafter.presets import Preset, preset_from_dict
from dynamicrafter.samplers import DDIM, DPM, DPM_SDE, UNIPC
from dynamicrafter.schedulers.ddim import DynamiCrafterScheduler

_SAMPLERS = {  # of ours, by what diffusers' schedulers that do the same are called
    "DDIMScheduler": DDIM,
    "DPMSolverMultistepScheduler": DPM,
    "DPMSolverSDEScheduler": DPM_SDE,
    "UniPCMultistepScheduler": UNIPC,
}
_PRESET = "_dynamicrafter_preset"  # attribute of a UNet, which goes with it from pipeline to pipeline


class PipelineBase(DiffusionPipeline):
    """The parts of a pipeline, and what a run tells of itself while it lasts."""

    _interrupt = False
    _guidance_scale: float = UNGUIDED.guidance
    _num_timesteps = 0
    _plan: PassPlan = UNGUIDED

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "scheduler" and not isinstance(value, DynamiCrafterScheduler):
            raise _foreign_scheduler(value)
        if name == "unet" and "preset" in self.config:
            self._hand_on_preset(value, self.config["preset"])
        super().__setattr__(name, value)

    def _hand_on_preset(self, unet: Any, preset: dict | None) -> dict | None:
        """Let a UNet keep the preset that its weights were made for, so that `Pipeline(**components)` knows it."""
        kept = getattr(unet, _PRESET, None)
        if kept is None and preset is not None and isinstance(unet, nn.Module):
            setattr(unet, _PRESET, preset)
        return preset or kept

    @property
    def preset(self) -> Preset:
        """What the checkpoint was made for: size, motion number, default sampling.

        Raises:
            InputError: the pipeline was made of networks without it.
        """
        fields = self.config["preset"]
        if fields is None:
            raise InputError(
                "preset must be given to a pipeline that is made of new networks; "
                "pass preset=dataclasses.asdict(get_preset('512')), or the name of another that they descend from."
            )
        return preset_from_dict(fields)

    @property
    def interrupt(self) -> bool:
        """Set `_interrupt` from a callback to end sampling after the step; what there is gets decoded."""
        return self._interrupt

    @property
    def guidance_scale(self) -> float:
        """Of the run, for callbacks; they may set `_guidance_scale`, and up to 1 it is off."""
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the run's next step is guided, as far as the guidance scale goes."""
        return len(self._plan_now().passes) > 1

    @property
    def num_timesteps(self) -> int:
        """Steps of the run."""
        return self._num_timesteps

    def _plan_now(self) -> PassPlan:
        """The run's plan with the guidance scale that a callback may have set."""
        same = self._guidance_scale == self._plan.guidance
        return self._plan if same else self._plan.rescaled_to(self._guidance_scale)

    def enable_group_offload(
        self,
        onload_device: torch.device,
        *args: Any,
        offload_to_disk_path: str | None = None,
        exclude_modules: str | list[str] | None = None,
        **options: Any,
    ) -> None:
        """As in diffusers; on a disk, each component has a folder of its own, as their groups have the same names.

        Raises:
            InputError: the folder on the disk holds another pipeline's weights, which would be taken for this one's.
        """
        if offload_to_disk_path is None:
            super().enable_group_offload(onload_device, *args, exclude_modules=exclude_modules, **options)
            return
        left_out = [exclude_modules] if isinstance(exclude_modules, str) else exclude_modules or []
        folder = Path(offload_to_disk_path)
        if any(folder.rglob("group_*.safetensors")):
            raise InputError(f"offload_to_disk_path must be an empty folder, got {folder}, where weights are already.")
        for name, component in self.components.items():
            if not isinstance(component, nn.Module):
                continue
            if name in left_out:
                component.to(onload_device)
            else:
                for tensor in component.parameters():  # a run may have laid them out otherwise, which no file holds
                    tensor.data = tensor.data.contiguous()
                place = str(folder / name)
                apply_group_offloading(component, onload_device, *args, offload_to_disk_path=place, **options)


def _foreign_scheduler(given: Any) -> InputError:
    name = type(given).__name__
    sampler = _SAMPLERS.get(name)
    if sampler == DPM and "sde" in getattr(given, "config", {}).get("algorithm_type", ""):
        sampler = DPM_SDE
    use = repr(sampler) if sampler else " or ".join(map(repr, dict.fromkeys(_SAMPLERS.values())))
    return InputError(
        f"scheduler must be a DynamiCrafterScheduler, which alone knows this model's noise schedule and latent scale, "
        f"got {name}; keep the pipeline's own, and pass sampler={use} to the call."
    )
