"""What stands in one place: names of presets and samplers in their tables, and one meaning for each class name."""

import ast
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from dynamicrafter import hub
from dynamicrafter.checkpoints.variants import possible_presets
from dynamicrafter.cli.bench import _presets
from dynamicrafter.cli.commands import AnimateCommand
from dynamicrafter.cli.parsing import parse
from dynamicrafter.faces.catalogue import Catalogue
from dynamicrafter.faces.controls import controls
from dynamicrafter.hub.names import preset_of_repository
from dynamicrafter.pipeline.loading import seeded_source
from dynamicrafter.presets import PRESETS, every_preset, get_preset
from dynamicrafter.samplers import SAMPLERS, SamplerEntry
from dynamicrafter.specs.options import AnimateOptions
from dynamicrafter.training.recipes import get_recipe

SOURCE = Path(__file__).parents[1] / "src" / "dynamicrafter"
TABLES = {"presets.py", "samplers.py"}


def modules():
    return [(path, ast.parse(path.read_text())) for path in sorted(SOURCE.rglob("*.py"))]


def test_public_class_names_have_one_meaning():
    counted = Counter(
        node.name
        for _, tree in modules()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name[0] != "_"
    )
    assert [name for name, times in counted.items() if times > 1] == []


def test_no_preset_or_sampler_is_named_outside_its_table():
    names = {preset.name for preset in every_preset()} | {name for each in every_preset() for name in each.aliases}
    names |= set(SAMPLERS)
    found = [
        f"{path.relative_to(SOURCE)}:{node.lineno}: {node.value!r}"
        for path, tree in modules()
        if path.name not in TABLES
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in names
    ]
    assert found == []


@pytest.fixture
def added(monkeypatch):
    """A preset that nothing but the table knows of."""
    preset = replace(PRESETS["512"], name="768", height=448, width=768, repo="nobody/DynamiCrafter_768")
    monkeypatch.setitem(PRESETS, "768", preset)
    return preset


def test_a_preset_that_is_added_to_the_table_is_found_through_every_face(added, tmp_path, monkeypatch):
    assert get_preset("768") == added
    assert hub.preset_from_filename("dynamicrafter_768_v1.ckpt") == "768"
    assert preset_of_repository("nobody/DynamiCrafter_768", "model.ckpt") == "768"
    source, _, seeded = seeded_source("seeded:768")
    assert seeded == added
    assert "768" in possible_presets(source)
    assert get_recipe("finetune-768").make().data.size == (448, 768)
    assert get_recipe("lora-768").make().trains == "lora"
    assert "768" in _presets()
    assert "768" in [choice.key for choice in Catalogue().choices()]
    monkeypatch.setenv("DYNAMICRAFTER_MODELS", str(tmp_path))
    for name in ("dynamicrafter_512.ckpt", "dynamicrafter_768.ckpt"):
        (tmp_path / name).touch()
    assert hub.best_local("animate").preset == "768"  # the larger of the two


def test_a_sampler_that_is_added_to_the_table_is_found_through_every_face(monkeypatch):
    entry = replace(SAMPLERS["unipc"], name="mine", summary="a sampler of one's own")
    assert isinstance(entry, SamplerEntry)
    monkeypatch.setitem(SAMPLERS, "mine", entry)
    assert AnimateOptions(sampler="mine").resolved(PRESETS["512"]).eta == 0
    assert parse(AnimateCommand, ["a.png", "--sampler", "mine"], prog="").clip.sampler == "mine"
    [control] = [control for control in controls(PRESETS["512"]) if control.option.name == "sampler"]
    assert "mine" in control.choices
