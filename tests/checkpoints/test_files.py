"""Checkpoint files are read in every layout, mapped; whatever is no checkpoint, or unsafe, is refused in one line."""

import hashlib
import io
import os
import pathlib
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import checkpoint_files as written
from dynamicrafter.checkpoints.files import TensorInfo, file_hash, fingerprint, open_tensors
from dynamicrafter.errors import CheckpointError

SMALL: dict[str, Tensor] = {
    "betas": torch.linspace(0, 1, 7),
    "model.diffusion_model.out.2.weight": torch.arange(24.0).reshape(2, 3, 2, 2),
    "half": torch.full((3,), 0.5, dtype=torch.bfloat16),
    "count": torch.tensor(5),
    "nothing": torch.zeros(0, 4),
}


def refusal(path: Path) -> str:
    """The message with which a file is refused, checked to be one printable line that names the file."""
    with pytest.raises(CheckpointError) as caught:
        open_tensors(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.endswith(".")
    assert message.isprintable(), "more than one line, or control characters"
    return message


def file_with(tmp_path: Path, content: bytes, name: str = "model.ckpt") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def pickled_file(tmp_path: Path, content: Any, *, legacy: bool = False, **options: Any) -> Path:
    path = tmp_path / "model.ckpt"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy, **options)
    return path


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
        assert _text(b"cpu") in path.read_bytes()
        moved = written.repack(
            path, tmp_path / "gpu.ckpt", lambda _, content: content.replace(_text(b"cpu"), _text(b"cuda:1"))
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


def _text(word: bytes) -> bytes:
    """How protocol 2 writes a word."""
    return b"X" + struct.pack("<I", len(word)) + word


def _pickle_that_runs(trace: Path, protocol: int) -> bytes:
    return pickle.dumps({"state_dict": written.Malicious(trace)}, protocol=protocol)


MALICIOUS: dict[str, Callable[[Path, Path], object]] = {
    "zip": lambda path, trace: torch.save({"state_dict": written.Malicious(trace)}, path),
    "zip beside good weights": lambda path, trace: written.write_lightning(
        path, SMALL, callbacks={"a": written.Malicious(trace)}
    ),
    "zip, protocol 4": lambda path, trace: torch.save(written.Malicious(trace), path, pickle_protocol=4),
    "legacy": lambda path, trace: torch.save(
        {"state_dict": written.Malicious(trace)}, path, _use_new_zipfile_serialization=False
    ),
    "plain, protocol 0": lambda path, trace: path.write_bytes(_pickle_that_runs(trace, 0)),
    "plain, protocol 2": lambda path, trace: path.write_bytes(_pickle_that_runs(trace, 2)),
    "plain, protocol 4": lambda path, trace: path.write_bytes(_pickle_that_runs(trace, 4)),
}


class TestUnsafe:
    @pytest.mark.parametrize("kind", MALICIOUS)
    def test_a_malicious_pickle_is_refused_by_name_and_nothing_in_it_runs(self, tmp_path, kind):
        path, trace = tmp_path / "model.ckpt", tmp_path / "it-ran"
        MALICIOUS[kind](path, trace)
        message = refusal(path)
        assert f"{os.mkdir.__module__}.mkdir" in message
        assert "nothing in it was run" in message
        assert ".safetensors" in message
        assert not trace.exists()

    def test_the_malicious_files_of_these_tests_do_run_elsewhere(self, tmp_path):
        trace = tmp_path / "it-ran"
        pickle.loads(_pickle_that_runs(trace, 2))
        assert trace.exists()

    @pytest.mark.parametrize(
        ("stranger", "name"),
        [
            (pathlib.PurePosixPath("runs"), "pathlib.PurePosixPath"),
            (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
            (torch.eye(2).to_sparse(), "torch._utils._rebuild_sparse_tensor"),
            (slice(3), "builtins.slice"),
            (re.compile("x"), "re._compile"),
        ],
    )
    @pytest.mark.parametrize("legacy", [False, True])
    def test_what_is_neither_tensor_nor_plain_container_is_refused(self, tmp_path, stranger, name, legacy):
        path = pickled_file(tmp_path, {"state_dict": SMALL, "hyper_parameters": {"x": stranger}}, legacy=legacy)
        assert name in refusal(path)

    def test_names_that_a_user_allowed_elsewhere_stay_refused(self, tmp_path):
        path = pickled_file(tmp_path, {"state_dict": SMALL, "run": pathlib.PurePosixPath("runs")})
        with torch.serialization.safe_globals([pathlib.PurePosixPath]):
            assert "pathlib.PurePosixPath" in refusal(path)

    def test_many_refused_names_are_counted_not_listed(self, tmp_path):
        names = b"".join(b"cevil\nname%d\n0" % i for i in range(50))
        message = refusal(file_with(tmp_path, b"\x80\x02" + names + b"N."))
        assert "and 47 more" in message

    def test_a_name_with_control_characters_is_shown_escaped(self, tmp_path):
        message = refusal(file_with(tmp_path, b"\x80\x02cevil\n\x1b[31mred\nN."))
        assert r"\x1b[31mred" in message

    def test_a_name_from_the_extension_registry_is_refused(self, tmp_path):
        assert "copyreg extension 7" in refusal(file_with(tmp_path, b"\x80\x02\x82\x07."))

    def test_an_attribute_that_hides_a_dictionary_method_does_no_harm(self, tmp_path):
        state = OrderedDict(SMALL)
        state._items = state._get = state._keys = 3
        path = pickled_file(tmp_path, {"state_dict": state})

        def hide(_: str, content: bytes) -> bytes:
            for name in (b"items", b"get", b"keys"):
                content = content.replace(_text(b"_" + name), _text(name))
            return content

        hidden = written.repack(path, tmp_path / "hidden.ckpt", hide)
        with open_tensors(hidden) as opened:
            assert set(opened) == set(SMALL)


class TestNoCheckpoint:
    def test_a_missing_file_says_so(self, tmp_path):
        assert "does not exist" in refusal(tmp_path / "model.ckpt")

    def test_a_link_to_nowhere_says_where(self, tmp_path):
        (tmp_path / "model.ckpt").symlink_to(tmp_path / "blob")
        assert f"links to {tmp_path / 'blob'}, which is missing" in refusal(tmp_path / "model.ckpt")

    def test_a_folder_asks_for_the_file_inside(self, tmp_path):
        assert "is a folder" in refusal(tmp_path)

    def test_what_is_no_file_at_all_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.ckpt")
        assert "neither a file nor a folder" in refusal(tmp_path / "pipe.ckpt")

    @pytest.mark.parametrize("suffix", [".incomplete", ".part", ".crdownload"])
    def test_an_unfinished_download_says_how_to_go_on(self, tmp_path, suffix):
        path = written.write_flat(tmp_path / f"blob{suffix}", SMALL)
        assert "run the download again, which resumes it" in refusal(path)

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (b"", "is empty (0 bytes)"),
            (b"\0" * 5000, "nothing but zeros"),
            (b"<!DOCTYPE html>\n<html><title>Sign in</title></html>", "is a web page, probably a login or error page"),
            (b"\xef\xbb\xbf\n  <HTML>", "is a web page"),
            (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is a web page"),
            (b'{"error": "Repository not\\u001b found"}', 'is a JSON text, not weights: {"error": "Repository not'),
            (b'{"error": "cut', "is a JSON text"),
            (b'{"weight_map": {"a": "model-00001-of-00002.safetensors"}}', "index of weights split over several files"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 10\n", "`git lfs pull`"),
            (b"Entry not found", "begins 'Entry not found'"),
            (b"could not\nfind that.\n", "begins 'could not find that.'"),
            (b"GGUF\3\0\0\0", "is a GGUF file"),
            (b"\x89PNG\r\n\x1a\n", "is a picture"),
            (b"\x1f\x8b\x08\0", "is a gzip archive; unpack it"),
            (b"\xde\xad\xbe\xef" * 4, "first bytes (de ad be ef de ad be ef)"),
            (pickle.dumps({"a": 1}, 2), "is a plain pickle, not a file of torch.save"),
            (b"\x80\x02}q", "is a plain pickle, not a file of torch.save"),
        ],
    )
    def test_another_kind_of_file_is_told_what_it_is(self, tmp_path, content, expected):
        assert expected in refusal(file_with(tmp_path, content))

    def test_a_zip_of_pictures_is_no_checkpoint(self, tmp_path):
        path = tmp_path / "photos.ckpt"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("beach.png", b"\x89PNG")
            archive.writestr("model/data.pkl", b"not in the first record's folder")
        assert "zip archive but no checkpoint (it holds beach.png, model/data.pkl)" in refusal(path)

    def test_an_empty_zip_is_no_checkpoint(self, tmp_path):
        zipfile.ZipFile(tmp_path / "empty.ckpt", "w").close()
        assert "no checkpoint (it holds nothing)" in refusal(tmp_path / "empty.ckpt")

    def test_a_torchscript_program_is_no_checkpoint(self, tmp_path):
        path = tmp_path / "script.pt"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("script/data.pkl", b"")
            archive.writestr("script/constants.pkl", b"")
        assert "TorchScript" in refusal(path)

    def test_a_pickle_under_a_safetensors_name_asks_for_a_rename(self, tmp_path):
        path = written.write_flat(tmp_path / "model.safetensors", SMALL)
        assert "rename it to end in .ckpt" in refusal(path)

    def test_another_pickle_protocol_is_named(self, tmp_path):
        path = pickled_file(tmp_path, SMALL, pickle_protocol=4)
        assert "pickle protocol 4" in refusal(path)

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ([torch.ones(2)], "holds a list, not a dictionary of weights"),
            (torch.ones(2), "holds a Tensor, not a dictionary of weights"),
            ({"epoch": 3, "name": "x"}, "it holds no tensor but epoch, name"),
            ({}, "it holds no tensor but nothing"),
            ({"state_dict": {}}, "its state_dict holds no tensor but nothing"),
            ({"module": {"_forward_module.step": 3}}, "its module holds no tensor but _forward_module.step"),
            ({"model": {"w": torch.ones(2)}}, "it holds no tensor but model"),
            ({3: torch.ones(2)}, "has a key that is no text, 3"),
            ({"state_dict": {("a", 1): torch.ones(2)}}, "has a key that is no text, ('a', 1)"),
            ({"w": torch.ones(2), "ema": {"deep": [torch.ones(2)]}}, "deeper, under 'ema'"),
            ({"module": {"_forward_module.w": torch.ones(2), "w": torch.ones(2)}}, "mixes keys with and without"),
        ],
    )
    @pytest.mark.parametrize("legacy", [False, True])
    def test_a_pickle_without_a_state_dict_says_what_it_has(self, tmp_path, content, expected, legacy):
        assert expected in refusal(pickled_file(tmp_path, content, legacy=legacy))


class TestDamaged:
    @pytest.mark.parametrize("layout", written.WRITERS)
    @pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
    def test_a_file_cut_short_says_so(self, tmp_path, layout, share):
        whole = written.WRITERS[layout](tmp_path / "whole", SMALL).read_bytes()
        message = refusal(file_with(tmp_path, whole[: int(len(whole) * share)]))
        assert "is cut short" in message
        assert "download it again" in message

    def test_a_safetensors_file_cut_in_its_header_says_so(self, tmp_path):
        whole = written.write_safetensors(tmp_path / "whole", SMALL).read_bytes()
        assert "is cut short: 40 bytes" in refusal(file_with(tmp_path, whole[:40]))

    @pytest.mark.parametrize("share", [0.2, 0.5, 0.999])
    def test_an_old_pickle_cut_short_says_so(self, tmp_path, share):
        whole = written.write_legacy(tmp_path / "whole", SMALL).read_bytes()
        assert "cut short" in refusal(file_with(tmp_path, whole[: int(len(whole) * share)]))

    def test_bytes_behind_the_end_of_a_safetensors_file_are_refused(self, tmp_path):
        whole = written.write_safetensors(tmp_path / "whole", SMALL).read_bytes()
        assert "2 bytes longer" in refusal(file_with(tmp_path, whole + b"xx"))

    @pytest.mark.parametrize(
        ("header", "expected"),
        [
            ("{}", "names no tensor"),
            ('{"__metadata__": {}}', "names no tensor"),
            ("{nonsense", "damaged header"),
            ('{"a": 3}', "damaged header"),
            ('{"a": {"dtype": "F32", "shape": [1], "data_offsets": []}}', "damaged header"),
            ('{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}', "is damaged"),
            ('{"a": {"dtype": "F77", "shape": [1], "data_offsets": [0, 4]}}', "is damaged"),
            (
                '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},'
                ' "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
                "names a twice",
            ),
            (
                '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},'
                ' "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
                "is damaged",
            ),
        ],
    )
    def test_a_wrong_safetensors_header_is_refused(self, tmp_path, header, expected):
        numbers = b"\0" * 4 if "F" in header else b""
        content = struct.pack("<Q", len(header)) + header.encode() + numbers
        assert expected in refusal(file_with(tmp_path, content, "model.safetensors"))

    def test_a_number_type_that_is_not_read_is_named(self, tmp_path):
        header = '{"a": {"dtype": "F8_E8M0", "shape": [4], "data_offsets": [0, 4]}}'
        content = struct.pack("<Q", len(header)) + header.encode() + b"\0" * 4
        assert "F8_E8M0" in refusal(file_with(tmp_path, content))

    def test_an_archive_packed_anew_with_compression_is_refused(self, tmp_path):
        path = written.write_flat(tmp_path / "whole", SMALL)
        small = written.repack(path, tmp_path / "small.ckpt", compression=zipfile.ZIP_DEFLATED)
        assert "packed anew with compression" in refusal(small)

    def test_an_archive_with_a_damaged_end_is_refused(self, tmp_path):
        path = written.write_flat(tmp_path / "whole", SMALL)
        content = bytearray(path.read_bytes())
        disks = content.rindex(b"PK\6\7") + 16  # how many volumes the archive is spread over
        content[disks : disks + 4] = struct.pack("<I", 7)
        assert "is damaged" in refusal(file_with(tmp_path, content))

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_an_archive_with_two_programs_is_refused(self, tmp_path):
        path = written.write_flat(tmp_path / "whole", SMALL)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("whole/data.pkl", b"N.")
        assert "it has 'whole/data.pkl' twice" in refusal(path)

    def test_a_tensor_that_claims_more_than_its_record_is_refused(self, tmp_path):
        path = written.write_flat(tmp_path / "whole", {"w": torch.ones(6)})

        def claim_more(name: str, content: bytes) -> bytes:
            return content.replace(b"K\x06t", b"K\x09t") if name.endswith("data.pkl") else content

        assert "no record of that length" in refusal(written.repack(path, tmp_path / "lie.ckpt", claim_more))

    def test_a_record_that_is_missing_is_refused(self, tmp_path):
        path, lacking = written.write_flat(tmp_path / "whole", SMALL), tmp_path / "lacking.ckpt"
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(lacking, "w") as new:
            for entry in old.infolist():
                if entry.filename != "whole/data/1":
                    new.writestr(entry.filename, old.read(entry))
        assert "is damaged" in refusal(lacking)

    @given(st.lists(st.tuples(st.integers(0, 399), st.integers(0, 255)), min_size=1, max_size=3))
    @settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_wrong_byte_in_the_program_gives_tensors_or_one_clear_line(self, tmp_path, changes):
        def corrupt(name: str, content: bytes) -> bytes:
            changed = bytearray(content)
            for place, value in changes if name.endswith("data.pkl") else []:
                changed[place % len(content)] = value
            return bytes(changed)

        path = written.write_flat(tmp_path / "whole", SMALL)
        _open_or_refuse(written.repack(path, tmp_path / "wrong.ckpt", corrupt))

    @given(st.data())
    @settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_wrong_byte_gives_tensors_or_one_clear_line(self, tmp_path, data):
        layout = data.draw(st.sampled_from(["lightning", "safetensors"]))
        content = bytearray(written.WRITERS[layout](tmp_path / "whole", SMALL).read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, min(len(content), 2500) - 1))] = data.draw(st.integers(0, 255))
        _open_or_refuse(file_with(tmp_path, bytes(content)))


def _open_or_refuse(path: Path) -> None:
    try:
        opened = open_tensors(path)
    except CheckpointError as error:
        message = str(error)
    else:
        message = ""
        with opened:
            assert all(tuple(opened[key].shape) == opened.info(key).shape for key in opened)
    assert not message or message.isprintable()


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
        assert fingerprint(folder("d", unet__config_json=b"{ }", unet__model_st=b"1", vae__model_st=b"2")) != first

    def test_nothing_there_has_no_fingerprint(self, tmp_path):
        with pytest.raises(CheckpointError, match="does not exist"):
            fingerprint(tmp_path / "model.ckpt")
        with pytest.raises(CheckpointError, match="no weights or settings"):
            fingerprint(tmp_path)


def test_the_reader_is_imported_without_torch():
    code = "import sys, dynamicrafter.checkpoints.files; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
