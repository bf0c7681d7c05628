"""The page at /, in headless Chromium against a live server."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

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
