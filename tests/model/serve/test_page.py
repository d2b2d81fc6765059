"""The page in a real Chromium: photos are dropped, answered and taught, by mouse and by keyboard."""

import base64
import re
from contextlib import ExitStack

import pytest
from browser import PATIENCE, chromium, expect  # noqa: F401 (a fixture)
from model.serve.conftest import app_of, listening
from photos import photo


@pytest.fixture
def open_page(chromium):  # noqa: F811
    """Opens the page of a model: (path, viewport, limits...); whatever the browser complains of fails the test."""
    complaints = []
    with ExitStack() as stack:

        def open_(path, *, viewport=None, scheme="light", **options):
            address = stack.enter_context(listening(app_of(path, **options)))
            context = chromium.new_context(viewport=viewport, color_scheme=scheme)
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(PATIENCE)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("request", lambda asked: asked.url.startswith((address, "blob:")) or complaints.append(asked.url))
            page.goto(address)
            return page

        yield open_
    assert not complaints


def send(page, target, kind, *photos):
    """Drops or pastes files (name, bytes) on an element that is to be seen, as a user does from another window."""
    expect(page.locator("#main")).to_be_visible()
    data = [[name, base64.b64encode(content).decode()] for name, content in photos]
    page.locator(target).evaluate(
        """(target, [kind, photos]) => {
            const data = new DataTransfer();
            for (const [name, text] of photos)
                data.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name));
            const init = { bubbles: true, cancelable: true };
            target.dispatchEvent(kind === "paste" ? new ClipboardEvent("paste", { ...init, clipboardData: data })
                : new DragEvent(kind, { ...init, dataTransfer: data }));
        }""",
        [kind, data],
    )


def test_drop_answer_teach_answer_again_and_undo(model, open_page):
    page = open_page(model)
    expect(page.locator("#facts")).to_contain_text("3 classes")
    send(page, "#drop", "drop", ("a.png", photo("red", 50)), ("b.png", photo("yellow", 51)))
    titles = page.locator(".card h3")
    expect(titles.first).to_have_text("red")
    expect(page.locator(".card").first.locator(".bars li")).to_have_count(3)
    expect(page.locator(".card").first.locator(".near img").first).to_have_js_property("complete", True)
    expect(page.locator(".card").first.locator(".near li")).to_have_count(6)
    expect(page.locator("#teach-button")).to_be_disabled()
    page.locator(".card .use").nth(1).click()
    name = "<img src=x onerror=alert(1)> & gelb"
    page.locator("#name").fill(name)
    send(page, "#teach-drop", "drop", ("c.png", photo("yellow", 52)), ("d.png", photo("yellow", 53)))
    expect(page.locator("#lesson li")).to_have_count(3)
    page.locator("#teach-button").click()
    expect(page.locator("#message")).to_contain_text(f"Learned {name} from 3 photos")
    expect(titles.nth(1)).to_have_text(name)
    row = page.locator("#classes tr", has_text="gelb")
    expect(row.locator("td").nth(1)).to_have_text("3")
    page.locator("#undo").click()
    expect(page.locator("#message")).to_contain_text("3 classes")
    expect(page.locator("#undo")).to_be_disabled()
    expect(titles.nth(1)).not_to_have_text(name)
    page.get_by_role("button", name="Forget red").click()
    expect(page.locator("#message")).to_contain_text("Forgotten: red")
    expect(titles.first).not_to_have_text("red")
    expect(page.locator("#classes tr")).to_have_count(2)


def test_a_file_that_is_no_image_and_photos_that_are_too_large(model, open_page):
    page = open_page(model, bytes=60_000, pixels=20_000)
    expect(page.locator("#ask-hint")).to_contain_text("59 KiB")
    photos = [("text.txt", b"no image"), ("wide.png", photo("red", 1, size=145)), ("heavy.png", b"x" * 70_000)]
    send(page, "#drop", "drop", *photos[:2], photos[2], ("fine.png", photo("red", 1)))
    notes = page.locator(".card .note")
    expect(notes.nth(0)).to_contain_text("text.txt: an image cannot be decoded")
    expect(notes.nth(1)).to_contain_text("wide.png")
    expect(notes.nth(2)).to_contain_text("more than 59 KiB")
    expect(page.locator(".card.bad")).to_have_count(3)
    expect(page.locator(".card h3").nth(3)).to_have_text("red")
    send(page, "#teach-drop", "drop", photos[0])
    page.locator("#name").fill("text")
    page.locator("#teach-button").click()
    expect(page.locator("#message")).to_contain_text("nothing was learned")
    page.locator("#clear").click()
    expect(page.locator(".card")).to_have_count(0)


def test_everything_by_keyboard_and_named_for_screen_readers(model, open_page, tmp_path):
    page = open_page(model)
    expect(page.locator("#main")).to_be_visible()
    send(page, "body", "paste", ("p.png", photo("blue", 60)))
    expect(page.locator(".card h3")).to_have_text("blue")
    expect(page.get_by_role("status")).to_contain_text("blue")
    for element in page.locator("button:visible, input:visible").all():
        label = element.evaluate("(e) => e.ariaLabel || e.labels?.[0]?.innerText || e.innerText")
        assert label.strip(), element.evaluate("(e) => e.outerHTML")
    reached = set()
    for _ in range(25):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
        if page.evaluate("document.activeElement.className") == "use":
            page.keyboard.press("Enter")
            expect(page.locator("#name")).to_be_focused()
            page.keyboard.type("navy")
            page.keyboard.press("Enter")
            break
    assert {"skip", "ask-files", "clear", "use"} <= reached
    expect(page.locator("#classes")).to_contain_text("navy")
    page.locator("#undo").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#classes")).not_to_contain_text("navy")


def test_a_narrow_and_dark_page_scrolls_in_one_direction_and_can_be_read(model, open_page):
    page = open_page(model, viewport={"width": 360, "height": 740}, scheme="dark")
    send(page, "#drop", "drop", ("a-name-that-has-no-end" * 8 + ".png", photo("red", 50)))
    expect(page.locator(".card h3")).to_have_text("red")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    back, text = page.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
    dark, bright = (sum(map(int, re.findall(r"\d+", colour))) for colour in (back, text))
    assert dark < 150 and bright > 600
    page.get_by_role("link", name="API").click()  # the docs say every operation
    for operation in ("POST /predict", "POST /learn", "DELETE /classes/{name}", "POST /undo", "GET /metrics"):
        expect(page.get_by_role("heading", name=operation)).to_be_visible()


def test_a_server_with_a_token_asks_for_it_and_a_read_only_one_does_not_teach(model, open_page):
    page = open_page(model, token="the-right-token", read_only=True)
    page.locator("#token").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#message")).to_contain_text("not the token")
    page.locator("#token").fill("the-right-token")
    page.keyboard.press("Enter")
    send(page, "#drop", "drop", ("a.png", photo("red", 50)))
    expect(page.locator(".card h3")).to_have_text("red")
    expect(page.locator(".near img").first).to_have_js_property("complete", True)
    expect(page.locator("#read-only")).to_be_visible()
    expect(page.locator("#teach")).to_be_hidden()
    expect(page.locator(".use")).to_be_hidden()
    expect(page.locator("#classes button")).to_have_count(0)
