"""What is asked for is fetched, and whatever goes wrong on the way is one clear line."""

import errno
import json

import huggingface_hub
import pytest
from huggingface_hub import constants

from dynamicrafter import hub
from dynamicrafter.errors import InputError, ModelNotFoundError, OutputError
from dynamicrafter.presets import ENCODER_REPO, PRUNED_COPIES, PRUNED_REPO
from fake_hub import INDEX, models_folder, refusal


class TestDownload:
    def test_a_preset_is_fetched_into_the_cache_once(self, server):
        server.files["Doubiiu/DynamiCrafter_512"] = {"model.ckpt": b"weights", "other.bin": b"not wanted"}
        first = hub.resolve("512", download=True)
        assert first.path.read_bytes() == b"weights"
        assert first == hub.find_local("512") == hub.resolve("512")
        server.asked.clear()
        assert hub.resolve("512", download=True) == first
        assert not server.asked

    def test_the_pruned_source_brings_encoders_where_its_file_lacks_them(self, server):
        files = {copy.file: copy.file.encode() for copy in PRUNED_COPIES}
        server.files[PRUNED_REPO] = files
        server.files[ENCODER_REPO] = {"open_clip_pytorch_model.bin": b"towers", "pytorch_model.bin": b"not wanted"}
        assert hub.download("1024", source="pruned").name == "dynamicrafter_1024_v1_bf16.safetensors"
        refusal(ModelNotFoundError, hub.find_encoders, None)
        path = hub.download("512", source="pruned")
        assert path.name == "dynamicrafter_512_fp16_pruned.safetensors"
        assert hub.find_encoders(None).read_bytes() == b"towers"
        assert hub.find_local("512").path == path

    def test_a_preset_without_a_pruned_copy_says_so(self):
        assert "does not exist for preset 256" in refusal(InputError, hub.download, "256", source="pruned")

    def test_a_repository_is_fetched_as_the_pipeline_it_holds(self, server):
        wanted = {"model_index.json": json.dumps(INDEX).encode(), "unet/config.json": b"{}", "vae/a.safetensors": b"1"}
        unwanted = {"vae/a.bin": b"2", "run.py": b"3", "whole.safetensors": b"4"}
        server.files["user/pipe"] = wanted | unwanted
        found = hub.resolve("user/pipe", download=True)
        assert found.kind == "folder"
        there = {p.relative_to(found.path).as_posix() for p in found.path.rglob("*") if p.is_file()}
        assert there == set(wanted)
        assert hub.resolve("user/pipe") == found

    def test_a_repository_is_fetched_as_the_one_checkpoint_it_holds(self, server):
        server.files["user/name"] = {"README.md": b"", "dynamicrafter_1024.ckpt": b"weights"}
        found = hub.resolve("user/name", download=True)
        assert (found.path.read_bytes(), found.kind, found.preset) == (b"weights", "file", "1024")
        server.files["user/two"] = {"a.ckpt": b"", "model.ckpt": b"weights"}
        assert hub.resolve("user/two", download=True).path.name == "model.ckpt"

    def test_a_repository_with_several_checkpoints_asks_which(self, server):
        server.files["user/name"] = {"a.ckpt": b"", "b.ckpt": b""}
        message = refusal(InputError, hub.resolve, "user/name", download=True)
        assert message == "user/name on the hub holds a.ckpt, b.ckpt; name one, as in user/name/a.ckpt."

    def test_a_repository_without_weights_says_so(self, server):
        server.files["user/name"] = {"README.md": b""}
        assert "holds no weights" in refusal(ModelNotFoundError, hub.resolve, "user/name", download=True)

    def test_a_file_that_the_repository_lacks_is_named(self, server):
        server.files["user/name"] = {"README.md": b""}
        message = refusal(ModelNotFoundError, hub.resolve, "user/name/a/b.ckpt", download=True)
        assert message.startswith("user/name has no file a/b.ckpt; see https://huggingface.co/user/name/tree/main")

    @pytest.mark.parametrize("name", ["user/name", "user/name/model.ckpt"])
    @pytest.mark.parametrize(
        ("refused", "expected"),
        [
            ((404, "RepoNotFound"), "the hub has no public repository user/name; check the name, or log in"),
            ((403, "GatedRepo"), "user/name is gated: accept its terms at https://huggingface.co/user/name"),
            ((503, ""), "of user/name could not be downloaded (503 Server Error"),
        ],
    )
    def test_a_refusal_of_the_hub_is_one_line(self, server, monkeypatch, name, refused, expected):
        monkeypatch.setattr("time.sleep", lambda seconds: None)  # the library waits before it tries again
        server.refused["user/name"] = refused
        message = refusal(ModelNotFoundError, hub.resolve, name, download=True)
        assert expected.replace("503 Server Error", "") in message
        assert ("503" in message) == (refused[0] == 503)

    @pytest.mark.parametrize("name", ["512", "user/name", "user/name/model.ckpt"])
    def test_without_a_network_a_download_says_so(self, name, monkeypatch):
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        message = refusal(ModelNotFoundError, hub.resolve, name, download=True)
        assert "could not be downloaded (" in message
        assert "Connection refused" in message
        assert "check the connection and run it again" in message

    @pytest.mark.parametrize("name", ["512", "user/name", "user/name/model.ckpt"])
    def test_where_the_environment_forbids_downloads_the_line_names_the_variable(self, monkeypatch, server, name):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        message = refusal(ModelNotFoundError, hub.resolve, name, download=True)
        assert "HF_HUB_OFFLINE forbids downloads; unset it" in message
        assert not server.asked

    @pytest.mark.parametrize(
        ("error", "kind", "expected"),
        [
            (OSError(errno.ENOSPC, "No space left on device"), OutputError, "the disk is full while downloading"),
            (OSError(errno.EDQUOT, "Disk quota exceeded"), OutputError, "the disk is full while downloading"),
            (RuntimeError("Data error: No space left on device (os error 28)"), OutputError, "the disk is full"),
            (PermissionError(errno.EACCES, "Permission denied"), OutputError, "can't be written"),
            (OSError("Consistency check failed:\n 3 bytes"), ModelNotFoundError, "(Consistency check failed:)"),
            (RuntimeError("CAS service error"), ModelNotFoundError, "(CAS service error)"),
            (TimeoutError(), ModelNotFoundError, "(TimeoutError)"),
        ],
    )
    def test_a_failing_disk_or_transfer_is_one_line(self, monkeypatch, cache, error, kind, expected):
        def fail(*args, **options):
            raise error

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
        message = refusal(kind, hub.download, "512")
        assert expected in message
        assert kind is not OutputError or str(cache.root) in message
        assert kind is not OutputError or "HF_HOME" in message

    @pytest.mark.parametrize("error", [TypeError("ours"), KeyboardInterrupt()])
    def test_our_own_faults_and_the_users_interrupt_stay_what_they_are(self, monkeypatch, error):
        def fail(*args, **options):
            raise error

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
        with pytest.raises(type(error)) as caught:
            hub.download("512")
        assert caught.value is error


class TestFindEncoders:
    def test_encoders_that_are_not_here_say_how_to_get_them(self):
        message = refusal(ModelNotFoundError, hub.find_encoders, None)
        assert "(laion/CLIP-ViT-H-14-laion2B-s32B-b79K, 3.9 GB) are not on this machine" in message
        assert "--encoders FILE or --download" in message

    def test_a_named_file_or_folder_is_looked_into(self, tmp_path, cache):
        cache.add(ENCODER_REPO, "open_clip_model.safetensors")
        message = refusal(ModelNotFoundError, hub.find_encoders, str(tmp_path / "no"), download=True)
        assert message == f"encoders {tmp_path / 'no'} is a path to nothing; check the path."
        assert "holds no encoders: none of open_clip" in refusal(ModelNotFoundError, hub.find_encoders, str(tmp_path))
        for file in ("model.safetensors", "open_clip_pytorch_model.bin", "open_clip_pytorch_model.safetensors"):
            (tmp_path / file).touch()
            assert hub.find_encoders(str(tmp_path)) == tmp_path / file
        (tmp_path / "towers.pt").touch()
        assert hub.find_encoders(str(tmp_path / "towers.pt")) == tmp_path / "towers.pt"

    def test_the_folder_of_models_goes_before_the_cache(self, tmp_path, monkeypatch, cache):
        in_cache = cache.add(ENCODER_REPO, "open_clip_model.safetensors")
        folder = models_folder(tmp_path, monkeypatch, "512/model.safetensors", "model.safetensors")
        assert hub.find_encoders(None) == in_cache, "a file of a usual name may be any model"
        named = models_folder(tmp_path, monkeypatch, f"{ENCODER_REPO.rpartition('/')[2]}/model.safetensors")
        assert hub.find_encoders(None) == named / ENCODER_REPO.rpartition("/")[2] / "model.safetensors"
        models_folder(tmp_path, monkeypatch, "clip/open_clip_pytorch_model.bin")
        assert hub.find_encoders(None) == folder / "clip" / "open_clip_pytorch_model.bin"

    def test_encoders_are_fetched_when_asked_for(self, server):
        server.files[ENCODER_REPO] = {"model.safetensors": b"1", "open_clip_model.safetensors": b"2", "a.bin": b"3"}
        assert hub.find_encoders(None, download=True).read_bytes() == b"2"
        assert hub.find_encoders(None).read_bytes() == b"2"

    def test_a_repository_without_known_files_says_so(self, server):
        server.files[ENCODER_REPO] = {"README.md": b""}
        assert "holds none of open_clip" in refusal(ModelNotFoundError, hub.find_encoders, None, download=True)
