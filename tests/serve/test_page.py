"""The page at /, in headless Chromium against a live server."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rubert_lite.conftest import build_answerer, build_tagger

from .running import serving, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("chromedriver") is None and "CI" not in os.environ,
        reason="needs chromium and chromium-driver",
    ),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(flag)
    options.add_argument("--window-size=1000,1100")
    options.binary_location = shutil.which("chromium") or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options, service)
    yield driver
    driver.quit()


def test_it_compares_and_classifies(browser, package: Path, tmp_path: Path) -> None:
    with serving(package) as running:
        browser.get(f"{running.url}/")
        about = browser.find_element("id", "about")
        until(lambda: "tiny, fp32, 8 чисел" in about.text)
        area = browser.find_element("id", "texts")
        area.clear()
        area.send_keys("мир\nдобрый день\nмир <b>\n\n")
        browser.find_element("id", "go").click()
        result = browser.find_element("id", "result")
        until(result.is_displayed)
        assert "inference" in browser.find_element("id", "time").text
        legend = browser.find_elements("css selector", "#legend li")
        assert [item.text for item in legend] == ["мир", "добрый день", "мир <b>"]
        rows = browser.find_elements("css selector", "#labels tr")
        assert len(rows) == 3
        assert rows[0].text.split()[1] in ("добро", "зло", "ничто")
        # The diagonal of the picture is dark, as a text is most like itself.
        script = """const c = document.getElementById('matrix'), p = c.getContext('2d');
            const side = 64 * devicePixelRatio, edge = 26 * devicePixelRatio;
            const at = (i, j) => [...p.getImageData(edge + (j + .1) * side, edge + (i + .1) * side,
            1, 1).data].slice(0, 3).reduce((a, b) => a + b);
            return [at(0, 0), at(1, 1), at(0, 1)];"""
        first, second, between = browser.execute_script(script)
        assert first == second < between
        browser.save_screenshot(str(tmp_path / "page.png"))
        assert [x for x in browser.get_log("browser") if x["level"] == "SEVERE"] == []


def test_it_tells_errors_and_takes_a_key(browser, package: Path) -> None:
    with serving(package, "--api-keys", "k", "--max-items", "2") as running:
        browser.get(f"{running.url}/")
        error = browser.find_element("id", "error")
        button, key = browser.find_element("id", "go"), browser.find_element("id", "key")
        button.click()
        until(lambda: "401" in error.text)
        key.send_keys("k")
        button.click()
        until(lambda: "413: 5 texts, expected at most 2" in error.text)
        area = browser.find_element("id", "texts")
        area.clear()
        area.send_keys("мир")
        button.click()
        until(browser.find_element("id", "result").is_displayed)
        assert error.text == ""


def test_nothing_comes_from_elsewhere(browser, package: Path) -> None:
    with serving(package) as running:
        browser.get(f"{running.url}/")
        script = "return performance.getEntriesByType('resource').map(e => e.name)"
        assert all(name.startswith(running.url) for name in browser.execute_script(script))


def test_it_marks_entities(browser, tmp_path: Path) -> None:
    with serving(build_tagger(tmp_path / "tagger")) as running:
        browser.get(f"{running.url}/")
        area = browser.find_element("id", "texts")
        area.clear()
        # A character that is two in JavaScript must not move what stands behind it.
        browser.execute_script("arguments[0].value = '𝄞 добрый день\\nмир <b>'", area)
        browser.find_element("id", "go").click()
        until(browser.find_element("id", "spans").is_displayed)
        lines = browser.find_elements("css selector", "#places li")
        marks = [mark.text.split("\n") for mark in browser.find_elements("css selector", "mark")]
        assert [line.text[:3] for line in lines] == ["𝄞 д", "мир"]
        assert [mark[0].split("DAY")[0].strip() for mark in marks][0] == "добрый день"
        assert len(marks) == 2 and "MAN" in marks[1][0]
        assert not browser.find_element("id", "asked").is_displayed()
        browser.save_screenshot(str(tmp_path / "entities.png"))


def test_it_answers(browser, tmp_path: Path) -> None:
    browser.get_log("browser")  # of the tests before
    with serving(build_answerer(tmp_path / "answerer")) as running:
        browser.get(f"{running.url}/")
        question = browser.find_element("id", "question")
        until(question.is_displayed)
        area = browser.find_element("id", "texts")
        area.clear()
        area.send_keys("мир, мир\nвот добрый день\nи мир")
        browser.find_element("id", "go").click()
        until(browser.find_element("id", "spans").is_displayed)
        (mark,) = browser.find_elements("css selector", "mark")
        assert mark.text.startswith("добрый день")
        assert browser.find_element("id", "spans-title").text == "Ответ"
        browser.save_screenshot(str(tmp_path / "answer.png"))
        assert [x for x in browser.get_log("browser") if x["level"] == "SEVERE"] == []
