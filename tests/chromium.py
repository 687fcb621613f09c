"""A headless browser, for tests of pages."""

import contextlib
import shutil


def is_missing():
  """Returns whether the browser or its driver is not installed."""
  return not (shutil.which("chromium") and shutil.which("chromedriver"))


@contextlib.contextmanager
def driven(webdriver, profile):
  """Opens the browser; its log is that of the page.

  Args:
    webdriver: `selenium.webdriver`, which is imported where it is there.
    profile: Folder of the browser's own files.
  """
  options = webdriver.ChromeOptions()
  options.binary_location = shutil.which("chromium")
  for flag in ("headless", "no-sandbox", "disable-gpu"):
    options.add_argument(f"--{flag}")
  options.add_argument(f"--user-data-dir={profile}")
  options.add_argument("--window-size=1200,900")
  options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
  service = webdriver.ChromeService(shutil.which("chromedriver"))
  with webdriver.Chrome(options, service) as driver:
    yield driver
