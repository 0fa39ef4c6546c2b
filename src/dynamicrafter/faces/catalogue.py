"""The models that a person may choose: those on this machine, and the published ones that could be fetched.

A choice is a key into this table and never a path.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from dynamicrafter import hub
from dynamicrafter.errors import InputError
from dynamicrafter.modes import MODES, Mode, ModeEntry
from dynamicrafter.presets import BUNDLED, USUAL_PRESET, Preset, every_preset, get_preset
from dynamicrafter.specs.model import ModelDescription, ModelSpec

AUTOMATIC = "automatic"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """A row of the table.

    Attributes:
        key: what stands for it.
        label: what a person reads.
        preset: where the name tells it.
        here: on this machine.
    """

    key: str
    label: str
    spec: ModelSpec
    preset: Preset | None
    here: bool = True


class Catalogue:
    """All models that a face offers.

    Args:
        start: the model that the face was started with; without a name, the best there is for each mode. Device,
            number format and memory hold for every model.
        downloads: whether published models that are not here are offered.
    """

    def __init__(self, start: ModelSpec | None = None, *, downloads: bool = True) -> None:
        self._start = start or ModelSpec()
        self.downloads = downloads

    def choices(self) -> list[ModelChoice]:
        """The table as it is now; files may have come since.

        Raises:
            InputError: DYNAMICRAFTER_MODELS names no folder.
        """
        rows, missing = [self._first()], []
        paths: set[Path] = set()
        for preset in every_preset():
            local = hub.find_local(preset.name)
            if local is not None:
                paths.add(local.path)
                rows.append(self._row(preset.name, _label(preset), preset.name, preset))
            elif preset.repo and self.downloads:
                label = f"{_label(preset)}: not here yet, {hub.OFFICIAL_GB:g} GB"
                missing.append(self._row(preset.name, label, preset.name, preset, here=False))
        for number, model in enumerate(hub.list_models_folder(), 1):
            if model.path not in paths:
                name, hint = model.path.name, get_preset(model.preset) if model.preset else None
                key, label = f"file {number}: {name}", f"{name} (in the folder of models)"
                rows.append(self._row(key, label, str(model.path), hint))
        return rows + missing

    def find(self, key: str, mode: Mode) -> ModelChoice:
        """The row that a key stands for, its model named.

        Raises:
            InputError: no such row, or a model that is not on this machine.
        """
        found = self.get(key)
        if found is None:
            raise InputError(f"model must be one of those in the list, got {str(key)[:60]!r}; choose another.")
        if not found.here:
            raise InputError(f"model {found.key} is not on this machine; press Download first, or choose another.")
        return replace(found, spec=found.spec.chosen((mode,)))

    def get(self, key: str) -> ModelChoice | None:
        """The row that a key stands for, if any."""
        return next((choice for choice in self.choices() if choice.key == key), None)

    def describe(self, key: str, mode: Mode) -> ModelDescription:
        """What can be told of a chosen model without loading it. Imports torch.

        Raises:
            InputError: as in `find`; or its files can't be used.
        """
        from dynamicrafter.pipeline.describing import describe

        return describe(self.find(key, mode).spec)

    def preset_for(self, key: str, mode: Mode) -> Preset:
        """The preset whose ranges and values are shown for a row; the usual one for a file that can't be used."""
        found = self.get(key)
        if found is not None and not found.here and found.preset is not None:
            return found.preset
        try:
            return self.describe(AUTOMATIC if found is None else key, mode).preset
        except InputError:
            return get_preset(USUAL_PRESET)

    def _first(self) -> ModelChoice:
        label = "The best on this machine"
        if self._start.name is not None:
            label = f"{Path(self._start.name).name} (as the page was started)"
        return ModelChoice(key=AUTOMATIC, label=label, spec=self._start, preset=None)

    def _row(self, key: str, label: str, model: str, preset: Preset | None, *, here: bool = True) -> ModelChoice:
        spec = replace(self._start, name=model, preset=None, encoders=None, lora=())
        return ModelChoice(key=key, label=label, spec=spec, preset=preset, here=here)


def _label(preset: Preset) -> str:
    if preset.name == BUNDLED.name:
        return f"{preset.name}: small and quick, {preset.width}×{preset.height}"
    kinds = dict.fromkeys(_kind(MODES[mode]) for mode in preset.modes)
    return f"{preset.name}: {preset.width}×{preset.height}, {', '.join(kinds)}"


def _kind(mode: ModeEntry) -> str:
    if mode.returns:
        return "loops"
    if mode.ends_on_picture:
        return "between pictures"
    return "from one picture" if mode.pictures[0] else "from words alone"
