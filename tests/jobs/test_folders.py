"""Jobs from a folder: prompts by name, pairs by name, and the published layout by line."""

import pytest

from dynamicrafter.errors import InputError
from dynamicrafter.jobs.folders import jobs_in_folder, natural
from dynamicrafter.jobs.job import Defaults, JobsError


@pytest.fixture
def fill(tmp_path):
    """Files by name, with their texts; pictures need no content to be listed."""

    def fill(*pictures, **texts):
        for name in pictures:
            (tmp_path / name).write_bytes(b"")
        for name, text in texts.items():
            (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8", newline="")
        return tmp_path

    return fill


def seen(jobs):
    return [(job.key, [path.name for path in job.pictures], job.clip.prompts[0], job.clip.mode) for job in jobs]


def problems_of(folder, defaults=None, **settings):
    with pytest.raises(JobsError) as caught:
        jobs_in_folder(folder, defaults or Defaults(), **settings)
    return [text.replace(str(folder), "…") for text in (*caught.value.problems, *caught.value.details)]


def test_each_picture_has_the_prompt_of_its_name_in_natural_order(fill):
    folder = fill("b10.png", "b9.JPG", ".hidden.png", "notes.md", b9="\ufeffrain\n and  wind\n", b10="snow")
    assert seen(jobs_in_folder(folder, Defaults())) == [
        ("b9", ["b9.JPG"], "rain and wind", "animate"),
        ("b10", ["b10.png"], "snow", "animate"),
    ]


def test_one_prompt_may_serve_all_that_have_none_of_their_own(fill):
    folder = fill("a.png", "b.png", b="snow")
    jobs = jobs_in_folder(folder, Defaults(prompt="rain", mode="loop"))
    assert seen(jobs) == [("a", ["a.png"], "rain", "loop"), ("b", ["b.png"], "snow", "loop")]


def test_pictures_without_prompt_and_prompts_without_picture_are_all_said(fill):
    assert problems_of(fill("a.png", "b.png", "c.png", a="rain", d="snow")) == [
        "…/d.txt: a prompt without a picture; call it as the picture is called.",
        '…/b.png: no prompt; write …/b.txt, or give all one: --prompt "…".',
        '…/c.png: no prompt; write …/c.txt, or give all one: --prompt "…".',
    ]


def test_pairs_are_found_by_name_and_said(fill, caplog):
    folder = fill("sea_01.png", "sea_02.png", "sky.first.jpg", "sky.last.jpg", "tree.png", sea="waves")
    assert seen(jobs_in_folder(folder, Defaults(prompt="wind"))) == [
        ("sea", ["sea_01.png", "sea_02.png"], "waves", "interpolate"),
        ("sky", ["sky.first.jpg", "sky.last.jpg"], "wind", "interpolate"),
        ("tree", ["tree.png"], "wind", "animate"),
    ]
    assert "2 pairs of pictures are interpolated, such as sea_01.png and sea_02.png" in caplog.text


def test_numbered_pictures_are_no_pair_where_there_are_three_or_one_has_its_own_prompt(fill):
    folder = fill("a_1.png", "a_2.png", "a_3.png", "b_1.png", "b_2.png", b_1="rain")
    assert {job.clip.mode for job in jobs_in_folder(folder, Defaults(prompt="snow"))} == {"animate"}


def test_a_mode_that_is_named_decides_whether_there_are_pairs(fill):
    folder = fill("a_1.png", "a_2.png")
    assert len(jobs_in_folder(folder, Defaults(prompt="", mode="animate"))) == 2
    (folder / "b.png").touch()
    assert problems_of(folder, Defaults(prompt="", mode="interpolate")) == [
        "…/b.png: no partner; call two pictures x_01 and x_02, or x.first and x.last."
    ]


def test_the_published_layout_goes_by_line_and_keeps_blank_ones(fill):
    folder = fill("2.png", "10.png", "1.png", test_prompts="one\r\n\r\nten\r\n", notes="unread")
    jobs = jobs_in_folder(folder, Defaults(), published_layout=True)
    assert seen(jobs) == [
        ("1", ["1.png"], "one", "animate"),
        ("2", ["2.png"], "", "animate"),
        ("10", ["10.png"], "ten", "animate"),
    ]


def test_the_published_layout_takes_pictures_two_by_two_to_interpolate(fill):
    folder = fill("x_frame1.png", "x_frame3.png", "y_01.png", "y_02.png", prompts="one\ntwo")
    jobs = jobs_in_folder(folder, Defaults(mode="interpolate"), published_layout=True)
    assert seen(jobs) == [
        ("x_frame1-x_frame3", ["x_frame1.png", "x_frame3.png"], "one", "interpolate"),
        ("y", ["y_01.png", "y_02.png"], "two", "interpolate"),
    ]


def test_a_count_that_does_not_match_shows_both_sides(fill):
    folder = fill("a.png", "b.png", test_prompts="one\n\nthree\n")
    assert problems_of(folder, published_layout=True) == [
        "…/test_prompts.txt has 3 lines and its folder 2 pictures, where there must be a picture for each line:",
        "  line 1: 'one' | a.png",
        "  line 2: '' | b.png",
        "  line 3: 'three' | (no picture)",
    ]
    (folder / "test_prompts.txt").write_text("one")
    assert problems_of(folder, published_layout=True)[-1] == "  line 2: (none) | b.png"
    odd = problems_of(fill("c.png"), Defaults(mode="interpolate"), published_layout=True)
    assert odd[0].endswith("has 1 lines and its folder 3 pictures, where there must be two pictures for each line:")


@pytest.mark.parametrize(
    ("texts", "defaults", "said"),
    [
        ({}, Defaults(), "must hold test_prompts.txt or one text file, got none"),
        ({"a": "x", "b": "y"}, Defaults(), "must hold test_prompts.txt or one text file, got a.txt, b.txt"),
        ({"test_prompts": "x"}, Defaults(prompt="y"), "prompt must be left out with --published-layout"),
    ],
)
def test_a_published_folder_needs_one_text_of_prompts(fill, texts, defaults, said):
    with pytest.raises(InputError, match=said):
        jobs_in_folder(fill("a.png", **texts), defaults, published_layout=True)


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no pictures"):
        jobs_in_folder(tmp_path, Defaults(prompt=""))


def test_natural_order_counts():
    names = ["a10", "a9", "A1", "b", "10", "9", "a09"]
    assert sorted(names, key=natural) == ["9", "10", "A1", "a09", "a9", "a10", "b"]
