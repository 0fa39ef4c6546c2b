"""Models are chosen from a list, in which a new preset appears by itself."""

from dataclasses import replace

import pytest
from huggingface_hub import constants

from dynamicrafter import hub
from dynamicrafter.errors import InputError
from dynamicrafter.faces.catalogue import AUTOMATIC, Catalogue
from dynamicrafter.presets import BUNDLED, PRESETS
from dynamicrafter.specs.model import ModelSpec


@pytest.fixture(autouse=True)
def _no_models(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv(hub.MODELS_VARIABLE, raising=False)


def test_the_list_shows_what_is_here_first_and_what_could_be_fetched_last():
    rows = Catalogue().choices()
    assert [row.key for row in rows] == [AUTOMATIC, "bundled", *PRESETS]
    assert [row.here for row in rows] == [True, True] + [False] * len(PRESETS)
    assert "not here yet, 10.4 GB" in rows[-1].label
    assert [row.key for row in Catalogue(downloads=False).choices()] == [AUTOMATIC, "bundled"]


def test_the_best_model_for_a_task_is_the_one_that_the_command_line_takes():
    found = Catalogue().find(AUTOMATIC, "loop")
    assert found.spec == ModelSpec(name=str(hub.best_local("loop").preset))
    assert Catalogue().describe(AUTOMATIC, "loop").preset == BUNDLED


def test_files_in_the_folder_of_models_can_be_chosen_and_no_other_path(tmp_path, monkeypatch):
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "mine.safetensors").write_bytes(b"x")
    monkeypatch.setenv(hub.MODELS_VARIABLE, str(folder))
    catalogue = Catalogue()
    [row] = [row for row in catalogue.choices() if "mine" in row.label]
    assert catalogue.find(row.key, "animate").spec == ModelSpec(name=str(folder / "mine.safetensors"))
    for key in (str(folder / "mine.safetensors"), "../mine.safetensors", "seeded:tiny", ""):
        with pytest.raises(InputError, match=r"^model must be one of those in the list"):
            catalogue.find(key, "animate")


def test_a_model_that_is_not_here_is_not_fetched_unasked():
    with pytest.raises(InputError, match=r"^model 512 is not on this machine; press Download first"):
        Catalogue().find("512", "animate")


def test_the_model_of_the_start_is_the_default_with_all_that_belongs_to_it():
    start = ModelSpec(name="seeded:tiny", device="cpu", memory="8GB")
    catalogue = Catalogue(start)
    assert catalogue.find(AUTOMATIC, "loop").spec == start
    assert "tiny" in catalogue.choices()[0].label
    assert catalogue.preset_for(AUTOMATIC, "loop").width == 64  # as its files say, and not the preset of its name
    assert catalogue.find("bundled", "loop").spec == ModelSpec(name="bundled", device="cpu", memory="8GB")


def test_a_preset_that_is_added_to_the_table_can_be_chosen(monkeypatch):
    monkeypatch.setitem(PRESETS, "768", replace(PRESETS["512"], name="768", height=512, width=768, repo="a/b"))
    row = next(row for row in Catalogue().choices() if row.key == "768")
    assert row.label == "768: 768×512, from one picture: not here yet, 10.4 GB"
    assert Catalogue().preset_for("768", "animate").width == 768
