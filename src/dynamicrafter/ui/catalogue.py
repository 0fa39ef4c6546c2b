"""The models that a visitor may choose: those on this machine, and the published ones that could be fetched.

A visitor's choice is a key into this table and never a path.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dynamicrafter import hub
from dynamicrafter.animator.options import Mode
from dynamicrafter.errors import InputError
from dynamicrafter.hub.names import SEEDED
from dynamicrafter.presets import BUNDLED, PRESETS, Preset, get_preset

AUTOMATIC = "automatic"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """A row of the table.

    Attributes:
        key: what the page sends back.
        label: what a person reads.
        preset: where it can be told without loading.
        here: on this machine.
        load: arguments of `Animator.from_pretrained`.
    """

    key: str
    label: str
    preset: Preset | None
    here: bool = True
    load: dict[str, Any] = field(default_factory=dict, hash=False)


class Catalogue:
    """All models that this page offers.

    Args:
        start: arguments of `Animator.from_pretrained` for the model that the page was started with; none, the best
            there is for each task.
        downloads: whether published models that are not here are offered.
    """

    def __init__(self, start: dict[str, Any] | None = None, *, downloads: bool = True) -> None:
        self._start = dict(start or {})
        self.downloads = downloads

    def choices(self) -> list[ModelChoice]:
        """The table as it is now; files may have come since.

        Raises:
            InputError: DYNAMICRAFTER_MODELS names no folder.
        """
        rows = [self._first()]
        paths: set[Path] = set()
        missing = []
        for name in (*PRESETS, BUNDLED.name):
            preset, local = get_preset(name), hub.find_local(name)
            if local is not None:
                paths.add(local.path)
                rows.append(ModelChoice(key=name, label=_label(preset), preset=preset, load={"model": name}))
            elif preset.repo and self.downloads:
                label = f"{_label(preset)}: not here yet, {hub.OFFICIAL_GB:g} GB"
                missing.append(ModelChoice(key=name, label=label, preset=preset, here=False))
        for number, model in enumerate(hub.list_models_folder(), 1):
            if model.path not in paths:
                preset = get_preset(model.preset) if model.preset else None
                rows.append(
                    ModelChoice(
                        key=f"file {number}: {model.path.name}",
                        label=f"{model.path.name} (in the folder of models)",
                        preset=preset,
                        load={"model": str(model.path)},
                    )
                )
        return rows + missing

    def find(self, key: str, mode: Mode | Literal["story"]) -> ModelChoice:
        """The row that a key stands for.

        Raises:
            InputError: no such row, or a model that is not on this machine.
        """
        found = next((choice for choice in self.choices() if choice.key == key), None)
        if found is None:
            raise InputError(f"model must be one of those in the list, got {str(key)[:60]!r}; choose another.")
        if not found.here:
            raise InputError(f"model {found.key} is not on this machine; press Download first, or choose another.")
        if found.key == AUTOMATIC and not found.load:
            local = hub.best_local("animate" if mode == "story" else mode)
            assert local.preset is not None
            preset = get_preset(local.preset)
            return ModelChoice(key=preset.name, label=_label(preset), preset=preset, load={"model": preset.name})
        return found

    def preset_for(self, key: str, mode: Mode | Literal["story"]) -> Preset:
        """The preset whose ranges the page shows; that of a file which doesn't tell its own is 512's."""
        known = next((choice for choice in self.choices() if choice.key == key), None)
        if known is None or (known.key == AUTOMATIC and not known.load):
            return get_preset(str(hub.best_local("animate" if mode == "story" else mode).preset))
        return known.preset or PRESETS["512"]

    def _first(self) -> ModelChoice:
        if not self._start:
            return ModelChoice(key=AUTOMATIC, label="The best on this machine", preset=None)
        name = str(self._start["model"])
        try:
            preset = get_preset(str(self._start.get("preset") or name.removeprefix(SEEDED)))
        except InputError:
            preset = None
        label = f"{Path(name).name} (as the page was started)"
        return ModelChoice(key=AUTOMATIC, label=label, preset=preset, load=self._start)


def _label(preset: Preset) -> str:
    if preset is BUNDLED:
        return f"bundled: small and quick, {preset.width}×{preset.height}"
    kind = "between pictures, loops" if preset.interpolates else "from one picture"
    return f"{preset.name}: {preset.width}×{preset.height}, {kind}"
