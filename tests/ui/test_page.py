"""The page in a browser, as a person goes through it."""

import re
from fractions import Fraction

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from huggingface_hub import constants
from PIL import Image

from dynamicrafter import hub
from dynamicrafter.errors import ModelNotFoundError
from dynamicrafter.media.formats import FORMATS
from dynamicrafter.media.video import read_clip
from dynamicrafter.ui.tabs import all_tabs
from ui_site import ROCKET

pytestmark = pytest.mark.xdist_group("page")


def tab(page, mode):
    """Go to a mode's tab and make its clips quick."""
    page.get_by_role("tab", name=mode.capitalize()).click()
    panel = page.locator(f"#tab-{mode}")
    option(panel, "steps").fill("2")
    option(panel, "frames").fill("3")
    return panel


def option(panel, name):
    return panel.locator(f"[id^=option-][id$='-{name}']").locator("input, textarea")


def give(panel, *pictures):
    for place, picture in enumerate(pictures):
        slot = panel.locator(f"[id^=picture-][id$='-{place}']")
        slot.locator("input[type=file]").set_input_files(picture)
        slot.locator("img").wait_for()


def made(page, mode):
    page.locator(f"#status-{mode} .done").wait_for()
    return page.locator("#gallery article").first


@pytest.mark.parametrize(("mode", "count"), [("animate", 1), ("interpolate", 2), ("loop", 1)])
def test_a_person_makes_a_clip_in_each_tab_and_uses_it_again(visit, mode, count):
    page = visit()
    panel = tab(page, mode)
    give(panel, *[ROCKET] * count)
    panel.get_by_label("What happens").fill("the camera pans left")
    page.locator(f"#make-{mode}").click()
    card = made(page, mode)
    assert card.locator("h3").inner_text() == "the camera pans left"
    assert page.wait_for_function("document.querySelector('#gallery video').readyState >= 2")
    panel.get_by_label("What happens").fill("something else")
    option(panel, "steps").fill("")
    card.get_by_role("button", name="Use again").click()
    page.locator(f"#status-{mode}").get_by_text("Filled in from your clip").wait_for()
    assert panel.get_by_label("What happens").input_value() == "the camera pans left"
    assert option(panel, "steps").input_value() == "2"
    page.locator(f"#make-{mode}").click()
    page.locator("#gallery article").nth(1).wait_for()


def test_a_person_makes_a_film_of_two_shots_and_uses_it_again(visit):
    page = visit()
    page.get_by_role("tab", name="Story").click()
    panel = page.locator("#tab-story")
    option(panel, "steps").fill("2")
    assert not option(panel, "frames").is_visible()  # each shot says its seconds
    page.locator("#make-story").click()
    panel.get_by_role("alert").get_by_text("Choose a picture for the first shot first.").wait_for()
    page.locator("#picture-story-0 input[type=file]").set_input_files(ROCKET)
    page.locator("#picture-story-0 img").wait_for()
    for number, words in enumerate(("the camera pans left", "nothing moves")):
        row = page.locator(f"#shot-{number}")
        row.get_by_label("What happens").fill(words)
        row.get_by_label("Seconds").fill("0.5")
    panel.get_by_label("Name of the film").fill("Lift-off")
    page.locator("#make-story").click()
    card = made(page, "story")
    assert card.locator("h3").inner_text() == "Lift-off"
    assert "7 frames" in card.inner_text()
    page.locator("#shot-1").get_by_label("What happens").fill("")
    card.get_by_role("button", name="Use again").click()
    page.locator("#status-story").get_by_text("Filled in from your clip").wait_for()
    assert page.locator("#shot-1").get_by_label("What happens").input_value() == "nothing moves"


def test_an_example_fills_the_tab_and_runs_and_downloads_in_every_format(visit, tmp_path):
    page = visit()
    panel = tab(page, "animate")
    panel.locator("#examples-animate tr.tr-body").first.click()
    panel.locator(".image-container img").first.wait_for()
    assert panel.get_by_label("What happens").input_value() == "the camera pans left"
    page.locator("#make-animate").click()
    card = made(page, "animate")
    kept = {}
    for link in card.locator(".downloads a").all():
        with page.expect_download() as download:
            link.click()
        name = download.value.suggested_filename
        assert re.fullmatch(r"the-camera-pans-left-123\.\w+", name)
        kept[name.rpartition(".")[2]] = tmp_path / name
        download.value.save_as(tmp_path / name)
    assert set(kept) == {*FORMATS, "zip"} - {"png"}
    exact, _ = read_clip(kept["npy"])
    assert exact.shape == (3, 128, 128, 3)
    played, _ = read_clip(kept["mp4"])
    assert np.abs(exact.astype(int) - played.astype(int)).mean() < 4


def test_what_is_wrong_is_said_in_words_below_the_button(visit, tmp_path):
    page = visit()
    panel = tab(page, "animate")
    alert = panel.get_by_role("alert")
    page.locator("#make-animate").click()
    alert.get_by_text("Choose the picture first.").wait_for()
    damaged = tmp_path / "holiday.png"
    damaged.write_bytes(b"no picture at all")
    panel.locator("input[type=file]").first.set_input_files(damaged)
    panel.locator("img").first.wait_for(state="attached")
    page.locator("#make-animate").click()
    alert.get_by_text("Holiday.png is no picture that can be read here").wait_for()
    option(panel, "steps").fill("many")
    page.locator("#make-animate").click()
    alert.get_by_text("Steps must be a whole number, got 'many'.").wait_for()
    panel.get_by_label("Remove Image").click()
    give(panel, ROCKET)
    option(panel, "steps").fill("31")
    page.locator("#make-animate").click()
    alert.get_by_text("Steps must be at most 30 on this server, got 31; try 30.").wait_for()
    assert "/" not in alert.inner_text()  # no path of the server


def test_a_job_can_be_cancelled_and_the_next_one_runs(visit, site):
    page = visit()
    panel = tab(page, "animate")
    give(panel, ROCKET)
    site.engine.go.clear()
    page.locator("#make-animate").click()
    page.get_by_role("progressbar").wait_for()
    page.locator("#cancel-animate").click()
    site.engine.go.set()
    panel.get_by_text("Cancelled. Nothing was kept.").wait_for()
    page.locator("#make-animate").click()
    made(page, "animate")
    assert page.locator("#gallery article").count() == 1


def test_a_model_that_is_not_here_is_fetched_only_when_its_button_is_pressed(visit, tmp_path, monkeypatch):
    asked = []

    def download(name):
        asked.append(name)
        raise ModelNotFoundError("model.ckpt could not be downloaded (no network); run it again.")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(hub.MODELS_VARIABLE, raising=False)
    monkeypatch.setattr(hub, "download", download)
    page = visit()
    page.get_by_label("Model").click()
    page.get_by_role("option", name=re.compile("^512: 512×320")).click()
    button = page.get_by_role("button", name="Download 512 (10.4 GB)")
    button.wait_for()
    panel = page.locator("#tab-animate")
    give(panel, ROCKET)
    page.locator("#make-animate").click()
    panel.get_by_role("alert").get_by_text("Model 512 is not on this machine; press Download first").wait_for()
    assert asked == []
    button.click()
    page.get_by_role("alert").get_by_text("Model.ckpt could not be downloaded (no network)").wait_for()
    assert asked == ["512"]


def test_two_visitors_wait_in_line_and_see_their_own_clips_only(visit, site):
    one, two = visit(), visit()
    site.engine.go.clear()
    for page, words in ((one, "the camera pans left"), (two, "nothing moves")):
        panel = tab(page, "animate")
        give(panel, ROCKET)
        panel.get_by_label("What happens").fill(words)
        page.locator("#make-animate").click()
        page.get_by_role("progressbar").wait_for()
    two.get_by_text("Next in line").wait_for()
    site.engine.go.set()
    assert made(one, "animate").locator("h3").inner_text() == "the camera pans left"
    card = made(two, "animate")
    assert card.locator("h3").inner_text() == "nothing moves"
    assert two.locator("#gallery article").count() == 1
    address = f"{site.url}{card.locator('video').get_attribute('src')}"
    assert two.request.get(address).status == 200
    assert one.request.get(address).status == 404


def test_a_reload_in_the_middle_loses_nothing(visit, site):
    page = visit()
    panel = tab(page, "loop")
    give(panel, ROCKET)
    panel.get_by_label("What happens").fill("the camera pans left")
    site.engine.go.clear()
    page.locator("#make-loop").click()
    page.get_by_role("progressbar").wait_for()
    page.reload()
    page.locator("#status-loop").get_by_role("progressbar").wait_for()
    assert panel.get_by_label("What happens").input_value() == "the camera pans left"
    assert option(panel, "steps").input_value() == "2"
    panel.locator("[id^=picture-] img").wait_for()
    site.engine.go.set()
    made(page, "loop")
    page.reload()
    page.locator("#gallery article").wait_for()


def test_a_job_that_crashes_leaves_the_page_up(visit, site, caplog):
    page = visit()
    panel = tab(page, "animate")
    give(panel, ROCKET)
    site.engine.fails.append(RuntimeError("a secret of the server"))
    page.locator("#make-animate").click()
    said = panel.get_by_role("alert")
    said.get_by_text("Something went wrong on the server").wait_for()
    assert "secret" not in said.inner_text()
    assert "a secret of the server" in caplog.text
    page.locator("#make-animate").click()
    made(page, "animate")


def test_it_works_by_keyboard(visit):
    page = visit()
    page.get_by_role("tab", name="Animate").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator("#tab-interpolate").get_by_label("What happens").wait_for()
    page.locator("#tab-interpolate").get_by_label("What happens").focus()
    reached = ""
    for _ in range(25):
        page.keyboard.press("Tab")
        reached = page.evaluate("document.activeElement.id")
        if reached == "make-interpolate":
            break
    assert reached == "make-interpolate"
    page.keyboard.press("Enter")
    page.locator("#tab-interpolate").get_by_role("alert").get_by_text("Choose both pictures first.").wait_for()


BEYOND = """() => [...document.querySelectorAll('#tabs *, #gallery *')].filter(part => {
  const box = part.getBoundingClientRect();
  return box.width && box.height && box.right > document.documentElement.clientWidth + 1;
}).map(part => part.id || part.className)"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_every_tab_is_within_reach_legible_and_named_at_any_width(visit, width, scheme):
    page = visit(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page.locator("#examples-animate tr[aria-label]").first.wait_for()
    names = [text.title for text in all_tabs()]
    assert [each.inner_text() for each in page.get_by_role("tab").all() if each.is_visible()] == names
    for name in names:
        page.get_by_role("tab", name=name).click()
        page.wait_for_timeout(300)
        assert page.evaluate(BEYOND) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = Axe().run(page).response["violations"]
        assert [(each["id"], each["nodes"][0]["target"]) for each in found if each["impact"] != "minor"] == []
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", colour)[:3])) / 3
    assert brightness < 60 if scheme == "dark" else brightness > 200


def test_another_seed_is_drawn_and_hints_name_the_servers_own_limits(visit):
    page = visit()
    panel = tab(page, "animate")
    assert option(panel, "seed").input_value() == "123"
    page.locator("#dice-animate").click()
    page.wait_for_function("document.querySelector('#option-animate-seed :is(input, textarea)').value != 123")
    assert 0 <= int(option(panel, "seed").input_value()) < 2**31
    assert "1 to 30." in page.locator("#option-animate-steps").inner_text()
    give(panel, ROCKET)
    option(panel, "frames").fill("600")
    page.locator("#make-animate").click()
    panel.get_by_role("alert").get_by_text("Frames must be at most 128 on this server, got 600; try 128.").wait_for()


def test_several_takes_of_one_seed_differ_and_play_as_fast_as_asked(visit, site):
    page = visit()
    panel = tab(page, "animate")
    give(panel, ROCKET)
    page.locator("#takes-animate input[type=number]").fill("2")
    page.locator("#fps-animate").locator("input, textarea").fill("24000/1001")
    page.locator("#make-animate").click()
    page.locator("#gallery article").nth(1).wait_for()
    cards = page.locator("#gallery article")
    assert "seed 123, take 2" in cards.nth(0).inner_text()
    assert "take" not in cards.nth(1).locator(".facts").inner_text()
    [second, first] = [site.service.results._results[cards.nth(place).get_attribute("data-token")] for place in (0, 1)]
    assert second.name == f"{first.name}-2"
    (frames, fps), (others, _) = read_clip(first.file("mp4")), read_clip(second.file("npy"))
    assert fps == Fraction(24000, 1001)
    assert not np.array_equal(read_clip(first.file("npy"))[0], others)
    assert len(frames) == 3
    page.locator("#fps-animate").locator("input, textarea").fill("fast")
    page.locator("#make-animate").click()
    panel.get_by_role("alert").get_by_text("Fps must be a number or a fraction such as 24000/1001").wait_for()


def test_a_server_that_is_gone_is_said_and_one_that_is_back_too(visit, site):
    page = visit()
    panel = tab(page, "animate")
    give(panel, ROCKET)
    site.engine.go.clear()
    page.locator("#make-animate").click()
    page.get_by_role("progressbar").wait_for()
    page.route("**/healthz", lambda route: route.abort())
    page.get_by_text("The server doesn’t answer.").wait_for()
    page.unroute("**/healthz")
    page.get_by_text("The server doesn’t answer.").wait_for(state="hidden")


def test_a_phone_brings_the_finished_clip_into_sight(visit):
    page = visit(viewport={"width": 390, "height": 844})
    panel = tab(page, "animate")
    give(panel, ROCKET)
    page.locator("#make-animate").click()
    made(page, "animate")
    page.wait_for_function("document.querySelector('#gallery .newest').getBoundingClientRect().top < innerHeight / 2")


def test_nothing_is_fetched_from_elsewhere_and_nothing_breaks(visit, site):
    page = visit()
    asked, wrong = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.reload()
    page.locator("#gallery").get_by_text("Your clips will appear here").wait_for()
    for mode in ("Interpolate", "Loop", "Story", "Animate"):
        page.get_by_role("tab", name=mode).click()
    page.get_by_role("button", name="More options").first.click()
    assert len(asked) > 10
    assert [url for url in asked if not url.startswith((site.url, "data:", "blob:"))] == []
    assert wrong == []


def test_a_large_picture_is_refused_in_words(visit, tmp_path):
    page = visit()
    panel = tab(page, "animate")
    wide = tmp_path / "wide.png"
    Image.new("L", (11_000, 5_000)).save(wide)  # 55 megapixels in few bytes
    give(panel, wide)
    page.locator("#make-animate").click()
    panel.get_by_role("alert").get_by_text("Wide.png has more than 50 megapixels; scale it down first.").wait_for()
