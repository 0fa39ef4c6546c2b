"""A device and the model on it: one request in, one clip out."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynamicrafter.specs.clip import CheckedClip
from dynamicrafter.ui.previews import Previewer
from dynamicrafter.ui.story import make_film

if TYPE_CHECKING:
    from dynamicrafter.animator.animator import Animator
    from dynamicrafter.animator.clip import Clip
    from dynamicrafter.specs.model import ModelSpec
    from dynamicrafter.ui.requests import ClipRequest
    from dynamicrafter.ui.tasks import TaskProgress


class Engine:
    """Makes clips on one device with one model at a time, which stays loaded until another is asked for.

    Args:
        device, dtype: as `ModelSpec` has them; they go before a request's own.
        load: loads an animator; for tests.
    """

    def __init__(
        self,
        device: str | None = None,
        dtype: str | None = None,
        *,
        load: Callable[[ModelSpec], Animator] | None = None,
    ) -> None:
        self.device, self._dtype = device, dtype
        self._load = load or _load
        self._loaded: tuple[ModelSpec, Animator] | None = None
        self._alone = threading.Lock()

    def make(self, request: ClipRequest, progress: TaskProgress) -> Clip:
        """Make a clip; its metadata name no folder of this machine.

        Args:
            request: checked.

        Raises:
            InputError: the model can't be loaded, or a picture went away.
        """
        work = request.work
        assert work is not None
        with self._alone:
            animator = self._animator(request.model.spec, progress)
            progress.on_phase("Encoding")
            if isinstance(work, CheckedClip):
                preview = Previewer(animator.pipeline, progress.on_preview)
                [clip] = animator.run([work], on_step=progress.on_step, on_denoised=preview)
            else:
                clip = make_film(animator, work, request.prompt, progress)
        return replace(clip, metadata=without_folders(clip.metadata))

    def _animator(self, spec: ModelSpec, progress: TaskProgress) -> Animator:
        spec = replace(spec, device=self.device or spec.device, dtype=self._dtype or spec.dtype)
        if self._loaded is not None and self._loaded[0] == spec:
            return self._loaded[1]
        progress.on_phase(f"Loading {Path(str(spec.name)).name}")
        self._loaded = None  # two models may not fit beside each other
        gc.collect()
        animator = self._load(spec)
        animator.pipeline.set_progress_bar_config(disable=True)
        self._loaded = (spec, animator)
        return animator


def without_folders(metadata: dict[str, Any]) -> dict[str, Any]:
    """A clip's metadata with models and adapters by their files' names alone."""

    def bare(entry: dict[str, Any]) -> dict[str, Any]:
        kept = {name: Path(entry[name]).name for name in ("name", "path") if entry.get(name)}
        return entry | kept | ({"lora": list(map(bare, entry["lora"]))} if "lora" in entry else {})

    lists = {name: list(map(bare, metadata[name])) for name in ("lora", "models") if name in metadata}
    return metadata | lists | {"model": bare(metadata["model"])}


def _load(spec: ModelSpec) -> Animator:
    from dynamicrafter.animator.animator import Animator

    return Animator.load(spec)
