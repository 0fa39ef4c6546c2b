"""Checkpoint files of every layout give back their tensors, mapped from the file; and files have an identity."""

import hashlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import checkpoint_files as written
from checkpoint_files import SMALL, file_with, pickled_file, word
from dynamicrafter.checkpoints.files import TensorInfo, file_hash, fingerprint, open_tensors
from dynamicrafter.errors import CheckpointError


class TestReading:
    @pytest.mark.parametrize("layout", written.WRITERS)
    @pytest.mark.parametrize("name", ["tiny256", "tiny512"])
    def test_every_layout_gives_back_the_published_keys_and_numbers(self, tmp_path, layout, name):
        tensors = written.tiny_tensors(name)
        path = written.WRITERS[layout](tmp_path / "weights", tensors)
        with open_tensors(path) as opened:
            assert opened.layout == layout
            assert opened.path == path
            assert set(opened.keys()) == set(tensors)
            assert len(opened) == len(tensors)
            for key, tensor in tensors.items():
                assert key in opened
                assert opened.info(key) == TensorInfo(tuple(tensor.shape), "float32")
                assert torch.equal(opened[key], tensor)

    @pytest.mark.parametrize("writer", [*written.WRITERS.values(), written.write_legacy])
    def test_shapes_and_types_come_back_as_they_were_written(self, tmp_path, writer):
        path = writer(tmp_path / "weights.bin", SMALL)
        with open_tensors(str(path)) as opened:
            for key, tensor in SMALL.items():
                assert opened.info(key).dtype == str(tensor.dtype).removeprefix("torch.")
                assert opened.info(key).shape == tuple(tensor.shape)
                assert opened[key].dtype == tensor.dtype
                assert torch.equal(opened[key], tensor)

    def test_a_file_of_torch_before_1_6_is_read_as_lightning(self, tmp_path):
        path = written.write_legacy(tmp_path / "old.ckpt", SMALL)
        with open_tensors(path) as opened:
            assert opened.layout == "lightning"
            assert set(opened) == set(SMALL)

    @pytest.mark.parametrize("layout", ["lightning", "safetensors"])
    def test_the_content_decides_not_the_name(self, tmp_path, layout):
        path = written.WRITERS[layout](tmp_path / "weights.jpg", SMALL)
        with open_tensors(path) as opened:
            assert opened.layout == layout

    def test_plain_entries_of_a_flat_file_are_left_out(self, tmp_path):
        plain = {"step": 7, "name": "x", "done": True, "none": None, "sizes": [1, (2.5, b"x")], "seen": {1, 2}}
        path = pickled_file(tmp_path, SMALL | plain)
        with open_tensors(path) as opened:
            assert opened.layout == "flat"
            assert set(opened) == set(SMALL)
            assert "step" not in opened

    def test_deepspeed_without_lightning_has_no_prefix_to_take_off(self, tmp_path):
        with open_tensors(pickled_file(tmp_path, {"module": SMALL})) as opened:
            assert opened.layout == "deepspeed"
            assert set(opened) == set(SMALL)

    def test_parameters_come_as_plain_tensors(self, tmp_path):
        weight = torch.nn.Parameter(torch.arange(3.0))
        with open_tensors(pickled_file(tmp_path, {"w": weight})) as opened:
            assert type(opened["w"]) is torch.Tensor
            assert not opened["w"].requires_grad
            assert torch.equal(opened["w"], weight)

    def test_tensors_saved_on_a_gpu_are_read_without_one(self, tmp_path):
        path = written.write_flat(tmp_path / "cpu.ckpt", SMALL)
        assert word(b"cpu") in path.read_bytes()
        moved = written.repack(
            path, tmp_path / "gpu.ckpt", lambda _, content: content.replace(word(b"cpu"), word(b"cuda:1"))
        )
        with open_tensors(moved) as opened:
            assert all(torch.equal(opened[key], tensor) for key, tensor in SMALL.items())

    def test_an_unknown_name_is_a_key_error(self, tmp_path):
        for layout, write in written.WRITERS.items():
            with open_tensors(write(tmp_path / layout, SMALL)) as opened:
                assert "alphas" not in opened
                with pytest.raises(KeyError):
                    opened["alphas"]
                with pytest.raises(KeyError):
                    opened.info("alphas")

    def test_two_names_for_one_memory_are_read_as_two_tensors(self, tmp_path):
        whole = torch.arange(12.0)
        tied = {"a": whole, "b": whole, "head": whole[:6], "turned": whole.reshape(3, 4).T, "alone": torch.ones(3)}
        tied["gaps"] = torch.arange(8.0).reshape(2, 4).T
        with open_tensors(pickled_file(tmp_path, tied)) as opened:
            tensors = {key: opened[key] for key in opened}
            for key, tensor in tied.items():
                assert torch.equal(tensors[key], tensor)
                assert tensors[key].is_contiguous()
            tensors["a"].zero_()
            assert torch.equal(tensors["b"], whole)
            assert torch.equal(tensors["head"], whole[:6])
            assert opened["alone"].data_ptr() == opened["alone"].data_ptr(), "a tensor on its own is not copied"

    @given(
        st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
                lambda key: key not in ("state_dict", "module", "__metadata__") and "\0" not in key
            ),
            st.lists(st.integers(0, 3), max_size=3),
            min_size=1,
            max_size=5,
        ),
        st.sampled_from(sorted(written.WRITERS)),
    )
    @settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_names_and_shapes_survive_the_way_there_and_back(self, tmp_path, shapes, layout):
        # A DeepSpeed file of mostly empty tensors is one of ZeRO-3's pieces, and refused as such.
        assume(layout != "deepspeed" or 2 * sum(0 in shape for shape in shapes.values()) <= len(shapes))
        tensors = {key: torch.randn(shape) for key, shape in shapes.items()}
        with open_tensors(written.WRITERS[layout](tmp_path / "any", tensors)) as opened:
            assert set(opened) == set(tensors)
            assert all(torch.equal(opened[key], tensor) for key, tensor in tensors.items())


class TestMapping:
    @pytest.mark.parametrize("layout", written.WRITERS)
    def test_writing_to_a_tensor_leaves_the_file_alone(self, tmp_path, layout):
        path = written.WRITERS[layout](tmp_path / "weights", SMALL)
        before = file_hash(path)
        with open_tensors(path) as opened:
            opened["betas"].add_(1)
        assert file_hash(path) == before

    @pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads Linux's list of maps")
    @pytest.mark.parametrize("layout", written.WRITERS)
    def test_closing_unmaps_the_file_once_no_tensor_of_it_lives(self, tmp_path, layout):
        path = written.WRITERS[layout](tmp_path / "weights", SMALL)

        def is_mapped() -> bool:
            return str(path) in Path("/proc/self/maps").read_text()

        with open_tensors(path) as opened:
            betas = opened["betas"]
            assert is_mapped()
        assert torch.equal(betas, SMALL["betas"]), "a tensor outlives the closed file"
        with pytest.raises(ValueError, match="is closed"):
            opened["betas"]
        del betas
        assert not is_mapped()

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's account of memory")
    @pytest.mark.parametrize("layout", written.WRITERS)
    def test_opening_a_large_file_takes_no_memory_for_its_numbers(self, tmp_path, layout):
        tensors = {f"layer{i}.weight": torch.zeros(8, 1 << 20) for i in range(2)}  # 64 MiB
        path = written.WRITERS[layout](tmp_path / "weights", tensors)
        del tensors
        torch.save({"x": torch.ones(1)}, tmp_path / "warm"), open_tensors(tmp_path / "warm").close()

        before = _anonymous_kib()
        with open_tensors(path) as opened:
            shapes = [opened.info(key).shape for key in opened]
            first = opened["layer0.weight"]
            assert shapes == [(8, 1 << 20)] * 2
            assert _anonymous_kib() - before < 4 << 10
            assert float(first[3, 17]) == 0


def _anonymous_kib() -> int:
    return int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[1])


class TestIdentity:
    def test_file_hash_is_the_sha256_of_the_file(self, tmp_path):
        assert file_hash(file_with(tmp_path, b"weights")) == hashlib.sha256(b"weights").hexdigest()

    def test_a_fingerprint_does_not_depend_on_name_or_place(self, tmp_path):
        (tmp_path / "deep").mkdir()
        first = fingerprint(file_with(tmp_path, b"weights", "a.ckpt"))
        assert fingerprint(file_with(tmp_path, b"weights", "deep/b.safetensors")) == first
        assert re.fullmatch("[0-9a-f]{16}", first)

    def test_a_fingerprint_sees_size_ends_and_any_changed_stretch(self, tmp_path):
        content = bytearray(os.urandom(9 << 20))
        original = fingerprint(file_with(tmp_path, content))
        stretch = (7 << 20) // 255 + 1  # one gap between two samples
        changes = {"start": slice(0, 1), "end": slice(-1, None), "middle": slice(5 << 20, (5 << 20) + stretch)}
        for place in changes.values():
            changed = content.copy()
            changed[place] = bytes(255 - byte for byte in content[place])
            assert fingerprint(file_with(tmp_path, changed)) != original
        assert fingerprint(file_with(tmp_path, content + b"\0")) != original
        assert fingerprint(file_with(tmp_path, content)) == original

    def test_a_fingerprint_tells_files_apart_by_size_alone(self, tmp_path):
        path, found = tmp_path / "zeros", set()
        for size in (8 << 20, (8 << 20) + 1, 9 << 20):
            with path.open("wb") as file:
                file.truncate(size)
            found.add(fingerprint(path))
        assert len(found) == 3

    def test_a_small_file_is_covered_whole(self, tmp_path):
        content = bytearray(os.urandom(3 << 20))
        original = fingerprint(file_with(tmp_path, content))
        content[1_700_001] ^= 1
        assert fingerprint(file_with(tmp_path, content)) != original

    def test_a_large_fingerprint_reads_three_mib(self, tmp_path, monkeypatch):
        path = tmp_path / "large.ckpt"
        with path.open("wb") as file:
            file.truncate(1 << 30)
        counted = 0
        opened = Path.open

        class Counting(io.FileIO):
            def read(self, size: int = -1) -> bytes:
                nonlocal counted
                content = super().read(size)
                counted += len(content)
                return content

        monkeypatch.setattr(Path, "open", lambda self, mode="r": Counting(self) if "b" in mode else opened(self, mode))
        fingerprint(path)
        assert counted == 3 << 20

    def test_a_folder_is_its_weights_and_settings_by_place(self, tmp_path):
        def folder(name: str, **files: bytes) -> Path:
            for file, content in files.items():
                path = (
                    tmp_path / name / file.replace("__", "/").replace("_json", ".json").replace("_st", ".safetensors")
                )
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            return tmp_path / name

        first = fingerprint(folder("a", unet__config_json=b"{}", unet__model_st=b"1", vae__model_st=b"2"))
        same = folder("b", vae__model_st=b"2", unet__model_st=b"1", unet__config_json=b"{}")
        (same / ".cache").mkdir()
        (same / ".cache" / "notes.json").write_text("{}")
        (same / "README.md").write_text("about it")
        assert fingerprint(same) == first
        assert fingerprint(folder("c", unet__config_json=b"{}", unet__model_st=b"2", vae__model_st=b"1")) != first
        assert fingerprint(folder("moved", unet__config_json=b"{}", unet__model_st=b"1", vae__other_st=b"2")) != first
        assert fingerprint(folder("d", unet__config_json=b"{ }", unet__model_st=b"1", vae__model_st=b"2")) != first

    def test_nothing_there_has_no_fingerprint(self, tmp_path):
        with pytest.raises(CheckpointError, match="does not exist"):
            fingerprint(tmp_path / "model.ckpt")
        with pytest.raises(CheckpointError, match="no weights or settings"):
            fingerprint(tmp_path)


def test_the_reader_is_imported_without_torch():
    code = "import sys, dynamicrafter.checkpoints.files; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
