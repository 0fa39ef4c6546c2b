"""A file that is unsafe, damaged or no checkpoint is refused in one line, and nothing in it runs."""

import os
import pathlib
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import checkpoint_files as written
from checkpoint_files import SMALL, file_with, pickled_file, refusal, word
from dynamicrafter.checkpoints.files import open_tensors
from dynamicrafter.errors import CheckpointError


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
                content = content.replace(word(b"_" + name), word(name))
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
        assert "is an unfinished download; run the download again" in refusal(path)

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
            ({"payload": {"w": torch.ones(2)}}, "it holds no tensor but payload"),
            ({3: torch.ones(2)}, "has a key that is no text, 3"),
            ({"state_dict": {("a", 1): torch.ones(2)}}, "has a key that is no text, ('a', 1)"),
            ({"w": torch.ones(2), "extra": {"deep": [torch.ones(2)]}}, "deeper, under 'extra'"),
            ({"w": torch.ones(2), "ema": {"deep": [torch.ones(2)]}}, "its ema holds no tensor but deep"),
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
