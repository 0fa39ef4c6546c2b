"""A model's name leads to files on this machine, and nothing is downloaded unasked."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dynamicrafter import hub
from dynamicrafter.errors import InputError, ModelNotFoundError
from dynamicrafter.presets import ENCODER_REPO, PRESETS, PRUNED_COPIES, PRUNED_REPO
from fake_hub import INDEX, models_folder, refusal


class TestFindLocal:
    @pytest.mark.parametrize("name", PRESETS)
    def test_the_official_file_is_found_in_the_cache(self, cache, name):
        assert hub.find_local(name) is None
        path = cache.add_preset(name)
        assert hub.find_local(name) == hub.LocalModel(path=path, kind="file", preset=name)
        assert [other for other in PRESETS if hub.find_local(other)] == [name]

    def test_the_official_file_goes_before_a_pruned_copy(self, cache):
        pruned = cache.add(PRUNED_REPO, "dynamicrafter_1024_v1_bf16.safetensors")
        assert hub.find_local("1024").path == pruned
        official = cache.add_preset("1024")
        assert hub.find_local("1024").path == official

    def test_a_complete_copy_goes_before_one_without_encoders(self, cache):
        cache.add(ENCODER_REPO, "open_clip_pytorch_model.bin")
        bare = cache.add(PRUNED_REPO, "dynamicrafter_512_interp_fp16_pruned.safetensors")
        assert hub.find_local("interp").path == bare
        complete = cache.add(PRUNED_REPO, "dynamicrafter_512_interp_v1_bf16.safetensors")
        assert hub.find_local("interp").path == complete

    def test_a_copy_without_encoders_counts_only_beside_encoders(self, cache):
        bare = cache.add(PRUNED_REPO, "dynamicrafter_512_fp16_pruned.safetensors")
        assert hub.find_local("512") is None
        cache.add(ENCODER_REPO, "open_clip_pytorch_model.bin")
        assert hub.find_local("512").path == bare

    def test_neither_does_one_in_the_folder_of_models_count_without_encoders(self, tmp_path, monkeypatch, cache):
        folder = models_folder(tmp_path, monkeypatch, "dynamicrafter_512_fp16_pruned.safetensors")
        official = cache.add_preset("512")
        assert hub.find_local("512").path == official
        models_folder(tmp_path, monkeypatch, "clip/open_clip_model.safetensors")
        assert hub.find_local("512").path == folder / "dynamicrafter_512_fp16_pruned.safetensors"

    def test_an_unfinished_download_is_not_found(self, cache):
        path = cache.add_preset("512")
        path.resolve().rename(path.resolve().with_suffix(".incomplete"))
        assert hub.find_local("512") is None

    @pytest.mark.parametrize(
        "file",
        [
            "dynamicrafter_512.ckpt",
            "512.safetensors",
            "512/model.ckpt",
            "DynamiCrafter_512/model.ckpt",
            "dynamicrafter_512_v1/model.ckpt",
            "checkpoints/dynamicrafter_512_v1/model.ckpt",
        ],
    )
    def test_the_folder_of_models_is_searched_by_name(self, tmp_path, monkeypatch, cache, file):
        folder = models_folder(tmp_path, monkeypatch, file, "README.md", ".cache/1024/model.ckpt", "notes.ckpt")
        cache.add_preset("512")
        assert hub.find_local("512") == hub.LocalModel(path=folder / file, kind="file", preset="512")
        assert [name for name in PRESETS if hub.find_local(name)] == ["512"]

    def test_a_pipeline_in_the_folder_of_models_is_one_model(self, tmp_path, monkeypatch):
        files = ("512/model_index.json", "512/unet/diffusion_pytorch_model.safetensors", "512/vae/512.safetensors")
        folder = models_folder(tmp_path, monkeypatch, *files)
        assert hub.list_models_folder() == [hub.LocalModel(path=folder / "512", kind="folder", preset="512")]

    def test_of_several_a_pipeline_goes_first_then_safetensors_then_a_pickle_then_what_lacks_encoders(
        self, tmp_path, monkeypatch
    ):
        order = (
            "z_512/model_index.json",
            "z512/dynamicrafter_512.safetensors",
            "512/model.ckpt",
            "dynamicrafter_512_fp16_pruned.safetensors",
        )
        folder = models_folder(tmp_path, monkeypatch, "open_clip_pytorch_model.bin", *order)
        (folder / "z_512" / "model_index.json").write_text(json.dumps({"preset": {"name": "512"}}))
        for place, file in enumerate(order):
            expected = folder / file if place else folder / "z_512"
            assert hub.find_local("512").path == expected
            shutil.rmtree(folder / file.partition("/")[0]) if "/" in file else (folder / file).unlink()
        assert hub.find_local("512") is None

    def test_a_variable_that_names_no_folder_says_so(self, tmp_path, monkeypatch):
        monkeypatch.setenv(hub.MODELS_VARIABLE, str(tmp_path / "typo"))
        assert f"DYNAMICRAFTER_MODELS must name a folder, got '{tmp_path / 'typo'}'" in refusal(
            InputError, hub.find_local, "512"
        )

    def test_no_such_preset_is_an_error(self):
        assert "got '768'" in refusal(InputError, hub.find_local, "768")


class TestBestLocal:
    def test_the_largest_model_for_the_task_wins(self, cache):
        for task in ("animate", "interpolate", "loop"):
            assert hub.best_local(task).preset == "bundled"
            assert hub.best_local(task).path == Path(hub.__file__).parents[1] / "bundled"
        for name in ("256", "512_interp", "512", "1024"):
            cache.add_preset(name)
            best = hub.best_local("animate")
            assert best.preset == (name if name != "512_interp" else "256")
        assert hub.best_local("interpolate").preset == hub.best_local("loop").preset == "512_interp"


class TestResolve:
    @pytest.mark.parametrize(("name", "preset"), [("512", "512"), ("interp", "512_interp"), ("1024", "1024")])
    def test_a_preset_that_is_not_here_says_how_to_get_it(self, name, preset):
        assert refusal(ModelNotFoundError, hub.resolve, name) == (
            f'model {preset} is not on this machine; run "dynamicrafter download {preset}" (10.4 GB) '
            f"or pass --download."
        )

    def test_a_preset_goes_before_a_folder_of_that_name(self, cache, tmp_path):
        (tmp_path / "512").mkdir()
        (tmp_path / "512" / "mine.safetensors").touch()
        official = cache.add_preset("512")
        assert hub.resolve("512").path == official
        assert hub.resolve("./512").path == Path("512/mine.safetensors")

    def test_a_file_is_itself(self, tmp_path):
        file = tmp_path / "DynamiCrafter_1024" / "tuned.ckpt"
        file.parent.mkdir()
        file.touch()
        assert hub.resolve(str(file)) == hub.LocalModel(path=file, kind="file", preset="1024")

    def test_a_path_may_begin_at_home(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "tuned.ckpt").touch()
        assert hub.resolve("~/tuned.ckpt").path == tmp_path / "tuned.ckpt"

    @pytest.mark.parametrize(
        ("index", "folder", "preset"),
        [
            ({"preset": {"name": "512_interp", "steps": 50}}, "mine", "512_interp"),
            ({"preset": {"name": "768"}}, "dynamicrafter-256", "256"),
            ({}, "dynamicrafter-256", "256"),
            ({"preset": 3}, "mine", None),
            ([], "mine", None),
        ],
    )
    def test_a_pipeline_is_a_folder_that_may_say_its_preset(self, tmp_path, index, folder, preset):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model_index.json").write_text(json.dumps(index))
        (tmp_path / folder / "model.ckpt").touch()
        expected = hub.LocalModel(path=tmp_path / folder, kind="folder", preset=preset)
        assert hub.resolve(str(tmp_path / folder)) == expected

    def test_a_folder_with_one_checkpoint_or_one_usual_name_means_that_file(self, tmp_path):
        (tmp_path / "step_9000.ckpt").touch()
        assert hub.resolve(str(tmp_path)).path == tmp_path / "step_9000.ckpt"
        (tmp_path / "model.ckpt").touch()
        assert hub.resolve(str(tmp_path)).path == tmp_path / "model.ckpt"

    def test_a_folder_with_several_checkpoints_asks_which(self, tmp_path):
        for step in range(6):
            (tmp_path / f"step_{step}.ckpt").touch()
        message = refusal(InputError, hub.resolve, str(tmp_path))
        assert "holds step_0.ckpt, step_1.ckpt, step_2.ckpt, step_3.ckpt and 2 more; name the file" in message

    def test_a_folder_without_a_model_says_what_was_looked_for(self, tmp_path):
        (tmp_path / "cat.png").touch()
        message = refusal(ModelNotFoundError, hub.resolve, str(tmp_path))
        assert "holds no model: neither model_index.json nor a file that ends in .safetensors, .ckpt" in message

    @pytest.mark.parametrize(
        "name", ["model.ckpt", "models/model.safetensors", "./user/name", "/no/where", "~/no-such", r"C:\model.ckpt"]
    )
    def test_a_path_to_nothing_says_so(self, name):
        assert refusal(ModelNotFoundError, hub.resolve, name) == f"model {name} is a path to nothing; check the path."

    def test_a_word_that_is_nothing_lists_the_presets(self):
        assert f"neither a preset ({', '.join(PRESETS)})" in refusal(ModelNotFoundError, hub.resolve, "2048")

    @pytest.mark.parametrize("name", ["", "  ", "a\nb", "user/na\0me", "\x1b[31m/x"])
    def test_what_can_be_no_name_is_refused(self, name):
        assert "model must be a preset, a path or a repository" in refusal(InputError, hub.resolve, name)

    def test_a_name_too_long_for_a_path_is_refused(self):
        assert "can be no repository" in refusal(InputError, hub.resolve, "user/" + "x" * 5000)

    @pytest.mark.parametrize("name", ["user/na--me", "user/name.git", "us er/name", "user/..name", "-user/name"])
    def test_a_repository_must_have_a_possible_name(self, name):
        assert "can be no repository on the hub" in refusal(InputError, hub.resolve, name)

    @pytest.mark.parametrize(
        "file", ["../../../../secret.ckpt", "a/../../b.ckpt", "./b.ckpt", "a//b.ckpt", "/etc/passwd", "c:b.ckpt"]
    )
    @pytest.mark.parametrize("download", [False, True])
    def test_a_file_in_a_repository_cannot_lead_out_of_it(self, cache, server, file, download):
        cache.add("user/name", "model.ckpt")
        (cache.root.parent / "secret.ckpt").touch()
        message = refusal(InputError, hub.resolve, f"user/name/{file}", download=download)
        assert "must name a file inside user/name" in message
        assert not server.asked

    def test_an_official_repository_is_its_preset(self, cache):
        path = cache.add_preset("512_interp")
        expected = hub.LocalModel(path=path, kind="file", preset="512_interp")
        for name in ("Doubiiu/DynamiCrafter_512_Interp", "doubiiu/dynamicrafter_512_interp"):
            assert hub.resolve(name) == hub.resolve(f"{name}/model.ckpt") == expected
        assert "model 256 is not on this machine" in refusal(ModelNotFoundError, hub.resolve, PRESETS["256"].repo)

    @pytest.mark.parametrize("copy", PRUNED_COPIES)
    def test_a_pruned_copy_is_known_by_its_file(self, cache, copy):
        path = cache.add(PRUNED_REPO, copy.file)
        expected = hub.LocalModel(path=path, kind="file", preset=copy.preset)
        assert hub.resolve(f"{PRUNED_REPO}/{copy.file}") == expected

    def test_a_file_deep_in_a_cached_repository_is_found(self, cache):
        path = cache.add("user/name", "runs/dynamicrafter_1024/last.ckpt")
        found = hub.resolve("user/name/runs/dynamicrafter_1024/last.ckpt")
        assert found == hub.LocalModel(path=path, kind="file", preset=None)

    def test_a_cached_repository_with_one_checkpoint_is_that_file(self, cache):
        path = cache.add("user/dynamicrafter-256-tuned", "tuned.safetensors")
        expected = hub.LocalModel(path=path, kind="file", preset="256")
        assert hub.resolve("user/dynamicrafter-256-tuned") == expected

    def test_a_cached_pipeline_counts_only_when_its_components_are_there(self, cache):
        index = cache.add("user/pipe", "model_index.json", json.dumps(INDEX).encode())
        cache.add("user/pipe", "unet/config.json")
        assert "neither a path here nor in the Hugging Face cache" in refusal(
            ModelNotFoundError, hub.resolve, "user/pipe"
        )
        cache.add("user/pipe", "vae/config.json")
        assert hub.resolve("user/pipe") == hub.LocalModel(path=index.parent, kind="folder", preset=None)

    @pytest.mark.parametrize("name", ["user/name", "user/name/tuned.ckpt"])
    def test_a_repository_that_is_not_here_says_how_to_get_it(self, name):
        message = refusal(ModelNotFoundError, hub.resolve, name)
        assert message.startswith(f"model {name} is neither a path here nor in the Hugging Face cache")
        assert "pass --download to fetch it from huggingface.co/user/name" in message

    def test_nothing_is_asked_of_the_network_unasked(self, cache, server):
        server.files["Doubiiu/DynamiCrafter_512"] = {"model.ckpt": b"weights"}
        server.files["user/name"] = {"model.ckpt": b"weights"}
        cache.add("user/other", "a.ckpt")
        for name in ("512", "user/name", "user/name/model.ckpt", "Doubiiu/DynamiCrafter_512"):
            refusal(ModelNotFoundError, hub.resolve, name)
        hub.resolve("user/other")
        hub.best_local("animate")
        refusal(ModelNotFoundError, hub.find_encoders, None)
        assert not server.asked


def test_the_room_is_imported_without_torch_and_without_the_hubs_library():
    code = "import sys, dynamicrafter.hub; sys.exit('torch' in sys.modules or 'huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
