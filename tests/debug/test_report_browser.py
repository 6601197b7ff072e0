"""The HTML report in a browser: a headless Chromium opens it, and keys and the mouse are used."""

from __future__ import annotations

import os
import random
import re
import sys
from pathlib import Path

import pytest

from selectors_ffi.debug import BusyLoop, ReportSink, report
from selectors_ffi.debug.records import Event, Lint, Registration, Source, Syscall, Wait

if sys.platform != "linux":
    pytest.skip("the browser is driven over Linux's descriptors", allow_module_level=True)

from .browser import CHROMIUM, Browser

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

HOSTILE = "</script><script>document.title='owned'</script><!-- \"'&\u2028\x00 <img src=x onerror=a()>"
MS = 1_000_000


@pytest.fixture(scope="module")
def browser():
    """One browser for all tests."""
    with Browser() as started:
        yield started


@pytest.fixture(autouse=True)
def silent(request):
    """No page writes to the console, throws, or asks for anything but itself."""
    yield
    if "browser" in request.fixturenames:
        started = request.getfixturevalue("browser")
        problems, started.problems = started.problems, []
        requests, started.requests = started.requests, []

        assert problems == []
        assert all(url.endswith("/report.html") for url in requests)


def write(path, records):
    """Write a report of records."""
    sink = ReportSink(path)
    for record in records:
        sink(record)
    sink.close()
    return path


def server(name="<socket.socket fd={}>", *, child=False):
    """Records of a loop: 300 waits of 2 ms, turns of 1 ms, one of 0.3 s, 5 descriptors, 2 findings."""
    source = Source(os.getpid() + child, os.getpid() + child, "EpollSelector-1")
    time = 10**12
    for fd in range(7, 12):
        yield Registration(time, source, "register", fd, "pipe", 1, name.format(fd), "")
    for index in range(300):
        fd = 7 + index % 5
        yield Syscall(time, source, "epoll_wait", ("3", "[...]", "256", "-1"), 1, 0, "", 2 * MS - 1000)
        given, dropped = (1, "") if index != 20 else (0, "not registered")
        flags = "EPOLLIN|EPOLLHUP" if index > 280 else "EPOLLIN"
        yield Event(time + 2 * MS, source, fd, "pipe", flags, given, name.format(fd), dropped)
        at = "server.py:9 in handle" if index == 151 else ""
        yield Wait(time, source, None if given else 0.001, 2 * MS, given, at=at)
        if index in (100, 200):
            message = BusyLoop.text(f"fd {fd} {name} was reported 100 times")
            yield Lint(time + 2 * MS, source, "SEL004", fd, message, "server.py:7 in run")
        time += 3 * MS + (300 * MS if index == 150 else 0)
    yield Syscall(time, source, "epoll_ctl", ("3", "EPOLL_CTL_DEL", "7", "NULL"), -1, 2, "", 5000)


@pytest.fixture
def page(browser, tmp_path):
    """The report of ``server()``, open in the browser."""
    path = write(tmp_path / "report.html", server())
    browser.size(1280, 900)
    browser.open(path)
    return browser


def span(page):
    """Return how many nanoseconds the timeline shows."""
    return page.run("timeline.view[1] - timeline.view[0]")


def text_of(page, name):
    """Return the text of an element."""
    return page.run(f"document.getElementById({name!r}).innerText")


def place_of(page, name):
    """Bring an element into the window; return x, y and width of it there."""
    return page.run(
        f"""(() => {{
        const element = document.getElementById({name!r});
        element.scrollIntoView();
        const {{ x, y, width }} = element.getBoundingClientRect();
        return [x, y, width];
        }})()"""
    )


def colours_of(page, name):
    """Return the colours that a canvas has, of the most frequent ones, as #rrggbb."""
    page.settle()
    found = page.run(
        f"""(() => {{
        const canvas = document.getElementById({name!r}), {{ width, height }} = canvas;
        const copy = new OffscreenCanvas(width, height).getContext("2d", {{ willReadFrequently: true }});
        copy.drawImage(canvas, 0, 0);
        const data = copy.getImageData(0, 0, width, height).data;
        const counts = new Map();
        for (let at = 0; at < data.length; at += 4) {{
            const colour = (data[at] << 16 | data[at + 1] << 8 | data[at + 2]).toString(16);
            counts.set(colour, (counts.get(colour) || 0) + 1);
        }}
        return [...counts].sort((one, two) => two[1] - one[1]).slice(0, 40).map(([colour]) => colour);
        }})()"""
    )
    return {f"#{colour:>06}" for colour in found}


def themes():
    """Return the colours of the light and of the dark theme, by name."""
    style = (Path(report.__file__).with_name("page") / "report.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", style, re.S)
    found = [dict(re.findall(r"--([\w-]+): (#\w+)", part)) for part in (light, dark)]
    return dict(zip(("light", "dark"), found))


@needs_browser
class TestPage:
    def test_summary(self, page):
        """The head says in words and figures what the trace shows."""
        figures = text_of(page, "figures")

        assert "busy for 50 % of" in text_of(page, "verdict")
        assert "The longest turn took 301 ms." in text_of(page, "verdict")
        assert re.search(r"Waits\s+300\s+299 events ready", figures)
        assert re.search(r"Failed calls\s+1", figures)
        assert re.search(r"Timeouts late by\s+1.00 ms", figures)

    def test_tables(self, page):
        """Findings have cause and cure; descriptors and calls are counted; owners are named."""
        assert "SEL004 BusyLoop" in text_of(page, "findings")
        assert f"Cause. {BusyLoop.cause}" in text_of(page, "findings")
        assert text_of(page, "findings").count(BusyLoop.cure) == 2, "once for each of two findings"
        assert re.search(r"60\s+fd 8 pipe\s+<socket.socket fd=8>", text_of(page, "descriptors"))
        assert re.search(r"socket.socket\s+5\s+5\s+299", text_of(page, "owners"))
        assert re.search(r"epoll_ctl\s+1\s.*ENOENT 1", text_of(page, "calls"))
        assert re.search(r"301 ms.*server.py:9 in handle", text_of(page, "turns").splitlines()[1])

    def test_sorting(self, page):
        """A column's title sorts by it, and says so to a screen reader."""
        page.run("document.querySelectorAll('#descriptors th button')[2].click()")
        heads = page.run(
            "[...document.querySelectorAll('#descriptors th')].map(th => th.getAttribute('aria-sort'))"
        )
        rows = page.run(
            "[...document.querySelectorAll('#descriptors tbody tr')].map(tr => tr.innerText)"
        )

        assert heads[:3] == [None, None, "ascending"]
        assert ["fd 7 " in rows[0], "fd 11 " in rows[-1]] == [True, True]

    def test_timeline_is_drawn(self, page):
        """Turns, waits, a long turn, calls, readiness and findings have their colours on it."""
        theme = themes()["light"]
        drawn = colours_of(page, "lanes")

        assert {theme[name] for name in ("busy", "wait", "slow", "read", "life", "finding")} <= drawn
        assert theme["busy"] in colours_of(page, "overview") or len(colours_of(page, "overview")) > 3
        assert len(colours_of(page, "axis")) > 3

    def test_dark(self, page):
        """A user who prefers dark colours gets them, also when the choice changes afterwards."""
        light = colours_of(page, "lanes")
        page.size(1280, 900, dark=True)
        dark = colours_of(page, "lanes")
        theme = themes()["dark"]

        assert theme["surface"] in dark - light
        assert {theme["busy"], theme["read"]} <= dark
        assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(14, 17, 22)"

    @pytest.mark.parametrize("width", [360, 768, 1920])
    def test_fits_any_width(self, page, width):
        """Nothing sticks out to the right, however narrow the window is."""
        page.size(width, 800)
        page.settle()

        assert page.run("document.documentElement.scrollWidth") <= width

    def test_everything_has_a_name(self, page):
        """Each button, field and picture has a name for those who do not see it."""
        nameless = page.run(
            """[...document.querySelectorAll("button, input, canvas, [role]")].filter(one =>
                one.getAttribute("aria-hidden") != "true" && !one.innerText.trim() &&
                !one.getAttribute("aria-label") && !one.closest("label") &&
                !["status", "alert"].includes(one.getAttribute("role"))).map(one => one.outerHTML)"""
        )

        assert nameless == []


@needs_browser
class TestKeyboard:
    def test_reached_by_tab(self, page):
        """The timeline is reached with the Tab key alone."""
        for _ in range(12):
            page.press("Tab")
            if page.run("document.activeElement.id") == "tracks":
                break

        assert page.run("document.activeElement.id") == "tracks"
        before = span(page)
        page.press("+")
        assert span(page) < before * 0.7

    def test_zoom_and_move(self, page):
        """Plus and minus zoom about the middle, arrows move, 0 shows everything."""
        page.run("document.getElementById('tracks').focus()")
        whole = page.run("timeline.view")
        for _ in range(5):
            page.press("+")
        near = page.run("timeline.view")
        assert near[1] - near[0] < (whole[1] - whole[0]) / 10
        page.press("ArrowRight")
        moved = page.run("timeline.view")
        assert moved[0] > near[0]
        assert moved[1] - moved[0] == pytest.approx(near[1] - near[0])
        page.press("-")
        assert span(page) > near[1] - near[0]
        page.press("0")
        assert page.run("timeline.view") == pytest.approx(whole)

    def test_limits(self, page):
        """There is an end to zooming, in both directions, and to moving."""
        page.run("document.getElementById('tracks').focus()")
        whole = page.run("timeline.view")
        page.press("-")
        page.press("ArrowLeft")
        assert page.run("timeline.view") == whole
        page.run("for (let n = 0; n < 200; n++) timeline.zoom(0.5)")
        assert span(page) == pytest.approx(200, rel=0.01)

    def test_items(self, page):
        """Full stop and comma go from item to item; the panel says what each is; Escape leaves."""
        page.run("document.getElementById('tracks').focus()")
        page.press("ArrowDown")
        assert "Findings" in text_of(page, "details")
        page.press("ArrowDown")
        assert "EpollSelector-1" in text_of(page, "details")
        page.press(".")
        assert "select() waited 2.00 ms" in text_of(page, "details")
        assert "epoll_wait(3, [...], 256, -1) = 1" in text_of(page, "details")
        assert "fd 7: EPOLLIN, given as read" in text_of(page, "details")
        page.press(".")
        assert "Turn of 1.00 ms" in text_of(page, "details")
        assert "fd 7 pipe" in text_of(page, "details")
        page.press(",")
        assert "select() waited" in text_of(page, "details")
        page.press("Enter")
        assert span(page) < 10 * MS
        page.press("Escape")
        assert "Nothing is selected" in text_of(page, "details")

    def test_findings_and_the_longest_turn(self, page):
        """n goes through the findings and begins again; l shows the longest turn."""
        seen = []
        for _ in range(3):
            page.press("n")
            seen.append(page.run("timeline.selected.time"))
        assert seen[0] < seen[1]
        assert seen[2] == seen[0]
        page.press("N")
        assert page.run("timeline.selected.time") == seen[1]
        page.press("l")
        assert "Turn of 301 ms" in text_of(page, "details")

    def test_filter(self, page):
        """A slash goes to the filter; it leaves the descriptors that fit, and Escape empties it."""
        page.press("/")
        assert page.run("document.activeElement.id") == "filter"
        page.call("Input.insertText", text="fd=9")
        assert text_of(page, "shown") == "1 of 5 descriptors"
        assert page.run("timeline.rows.filter(row => row.kind == 'fd').length") == 1
        page.press("Escape")
        assert text_of(page, "shown") == "5 descriptors"

    def test_help(self, page):
        """A question mark lists the keys; the keys do nothing meanwhile."""
        page.press("?")
        assert page.run("document.getElementById('help').open")
        page.press("l")
        assert page.run("timeline.selected") is None
        page.press("Escape")
        assert not page.run("document.getElementById('help').open")


@needs_browser
class TestMouse:
    def test_wheel_drag_and_click(self, page):
        """Control and the wheel zoom at the pointer; dragging moves; a click selects."""
        box = place_of(page, "lanes")
        x, y = box[0] + box[2] * 0.6, box[1] + 60
        at = page.run(f"timeline.time({box[2] * 0.6})")
        page.mouse("mouseWheel", x, y, deltaX=0, deltaY=-120, modifiers=2)
        assert span(page) < page.run("timeline.whole[1] - timeline.whole[0]")
        assert page.run(f"timeline.time({box[2] * 0.6})") == pytest.approx(at, rel=0.01)
        before = page.run("timeline.view")
        page.mouse("mousePressed", x, y, button="left", buttons=1, clickCount=1)
        page.mouse("mouseMoved", x - 100, y, button="left", buttons=1)
        page.mouse("mouseReleased", x - 100, y, button="left", clickCount=1)
        assert page.run("timeline.view")[0] > before[0]
        page.run("timeline.look(0, 3e6)")
        top = page.run("timeline.rows.find(row => row.kind == 'loop').top")
        x = box[0] + page.run("timeline.x(1e6)")
        page.mouse("mouseMoved", x, box[1] + top + 20)
        assert "select() waited 2.00 ms" in text_of(page, "tip")
        page.mouse("mousePressed", x, box[1] + top + 20, button="left", buttons=1, clickCount=1)
        page.mouse("mouseReleased", x, box[1] + top + 20, button="left", clickCount=1)
        assert "select() waited 2.00 ms" in text_of(page, "details")

    def test_overview(self, page):
        """Dragging over the overview shows that part."""
        box = place_of(page, "overview")
        page.mouse("mousePressed", box[0] + 500, box[1] + 20, button="left", buttons=1, clickCount=1)
        page.mouse("mouseMoved", box[0] + 600, box[1] + 20, button="left", buttons=1)
        page.mouse("mouseReleased", box[0] + 600, box[1] + 20, button="left", clickCount=1)
        part = 100 / page.run("timeline.width - timeline.label")
        expected = part * page.run("timeline.whole[1] - timeline.whole[0]")

        assert span(page) == pytest.approx(expected, rel=0.05)


@needs_browser
class TestData:
    def test_hostile_names(self, browser, tmp_path):
        """What a program names is text on the page: nothing of it runs, nothing of it is markup."""
        path = write(tmp_path / "report.html", server(HOSTILE + "{}"))
        browser.open(path)
        browser.press("n")
        browser.press("l")

        assert browser.run("document.title").endswith(": trace of its selectors")
        assert browser.run("document.querySelectorAll('img').length") == 0
        assert browser.run("document.scripts.length") == 1
        assert "document.title='owned'" in text_of(browser, "findings")

    def test_the_time_of_the_tool_itself(self, browser, tmp_path):
        """What the tool took is in no figure, and is told in the end."""
        source = Source(os.getpid(), os.getpid(), "EpollSelector-1")
        records = [
            Wait(index * 10 * MS, source, None, 3 * MS, 1, -1 if index == 0 else 1 * MS, 2 * MS)
            for index in range(101)
        ]
        browser.open(write(tmp_path / "report.html", records))
        figures = text_of(browser, "figures")

        assert "busy for 25 % of" in text_of(browser, "verdict")
        assert re.search(r"Longest turn\s+1.00 ms", figures)
        # 4 of the 5 ms of each turn, and 2 of the 5 ms of each wait.
        assert "Tracing itself took 602 ms" in text_of(browser, "footer")

    def test_processes(self, browser, tmp_path):
        """Each process has a header and tracks of its own."""
        path = write(tmp_path / "report.html", [*server(), *server(child=True)])
        browser.open(path)

        assert browser.run("timeline.rows.filter(row => row.kind == 'header').length") == 2
        assert browser.run("timeline.rows.filter(row => row.kind == 'fd').length") == 10
        assert "and 1 child" in text_of(browser, "subtitle")

    def test_nothing_was_recorded(self, browser, tmp_path):
        """A trace without any selector says so."""
        browser.call("Page.navigate", url=write(tmp_path / "report.html", []).as_uri())
        browser.settle()

        assert "Nothing was recorded" in text_of(browser, "problem")

    def test_cut_off(self, browser, tmp_path):
        """A page that was copied only in part says so."""
        path = write(tmp_path / "report.html", server())
        path.write_text(path.read_text()[:-2000])
        browser.call("Page.navigate", url=path.as_uri())
        browser.settle()

        assert "not complete" in text_of(browser, "problem")

    def test_summed_up(self, browser, tmp_path, monkeypatch):
        """What was summed up is drawn and counted."""
        monkeypatch.setattr(report, "DETAILED", 100)
        monkeypatch.setattr(report, "LAST", 50)
        path = write(tmp_path / "report.html", server())
        browser.size(1280, 900)
        browser.open(path)

        assert re.search(r"Waits\s+300\s+299 events ready", text_of(browser, "figures"))
        assert "busy for 50 % of" in text_of(browser, "verdict")
        assert "records were summed up over intervals" in text_of(browser, "footer")
        assert themes()["light"]["sum"] in colours_of(browser, "lanes")

    def test_opens_in_two_seconds(self, browser, tmp_path):
        """100 000 records are on the screen in less than two seconds."""
        generator = random.Random(1)
        source = Source(os.getpid(), os.getpid(), "EpollSelector-1")

        def records():
            time = 10**12
            for fd in range(5, 205):
                yield Registration(time, source, "register", fd, "socket", 1, f"<socket fd={fd}>", "")
            for _ in range(33_267):
                fd, lasts = generator.randrange(5, 205), generator.randrange(10_000, MS)
                data = f"[{{events=EPOLLIN, data={fd:#x}}}]"
                yield Syscall(time, source, "epoll_wait", ("3", data, "256", "-1"), 1, 0, "", lasts - 9)
                yield Event(time + lasts, source, fd, "socket", "EPOLLIN", 1, f"<socket fd={fd}>", "")
                yield Wait(time, source, None, lasts, 1)
                time += lasts + generator.randrange(10_000, MS)

        path = write(tmp_path / "report.html", records())
        browser.size(1280, 900)
        times = []
        while len(times) < 8 and min(times, default=9) >= 2:  # a busy machine may need another try
            times.append(browser.open(path))
        kept = browser.run("timeline.model.records")

        assert kept >= 100_000
        assert min(times) < 2, times
        assert browser.processor_time() < 1


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("ink", ["ink", "soft", "accent", "finding"])
@pytest.mark.parametrize("paper", ["page", "surface", "hover"])
def test_contrast(theme, ink, paper):
    """Text can be read on what it stands on: a contrast of 4.5, as the WCAG ask for."""
    colours = themes()[theme]
    one, two = sorted(_luminance(colours[name]) for name in (ink, paper))

    assert (two + 0.05) / (one + 0.05) >= 4.5


def _luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
