"""What is wrong with how a page lies at its width: what overflows, what lies on what, what is cut off."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Frame

WIDTHS = (533, 683, 813)  # pixels that JupyterLab leaves a view: at 1000 with its files listed, at 1000, and at 1280

# Words and controls that must keep apart. An area that scrolls shows what fits; a clamped text has its title.
_FAULTS = """() => {
  const page = document.documentElement, found = [];
  const words = (node) => (node.textContent || node.ariaLabel || "").trim().slice(0, 40);
  const named = (node) => `${node.tagName.toLowerCase()}.${node.className.baseVal ?? node.className} "${words(node)}"`;
  const low = page.scrollHeight - window.innerHeight, narrow = page.scrollWidth - window.innerWidth;
  if (low > 0) found.push(`the frame is ${low} px too low`);
  if (narrow > 0) found.push(`the frame is ${narrow} px too narrow`);
  const shown = (node) => node.checkVisibility({ visibilityProperty: true }) && !node.closest(".unseen, style");
  const all = [...document.querySelectorAll("main *")].filter(shown);
  const html = all.filter((node) => node instanceof HTMLElement);
  const clips = (node) => getComputedStyle(node).overflow !== "visible";
  const holds = (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
  for (const node of html.filter((node) => !node.matches(".scroll, select, input, option"))) {
    const style = getComputedStyle(node), inside = node.closest("[title]");
    if (style.display === "inline" || (inside && clips(node))) continue;
    if (node.scrollWidth > node.clientWidth + 1) found.push(`wider than its room: ${named(node)}`);
    if (clips(node) && node.scrollHeight > node.clientHeight + 1) found.push(`cut off below: ${named(node)}`);
  }
  const block = (node) => holds(node) && getComputedStyle(node).display !== "inline";
  const said = html.filter((node) => block(node) && !node.closest("button, select, label"));
  const drawn = all.filter((node) => node.matches("button, select, input, img, canvas, svg"));
  const parts = [...new Set([...drawn, ...said])];
  const seen = (node) => {
    let { left, top, right, bottom } = node.getBoundingClientRect();
    for (let up = node.parentElement; up; up = up.parentElement) if (clips(up)) {
      const box = up.getBoundingClientRect();
      [left, top] = [Math.max(left, box.left), Math.max(top, box.top)];
      [right, bottom] = [Math.min(right, box.right), Math.min(bottom, box.bottom)];
    }
    return { left, top, right, bottom };
  };
  const boxes = parts.map(seen);
  parts.forEach((one, i) => parts.slice(i + 1).forEach((other, k) => {
    const [a, b] = [boxes[i], boxes[i + 1 + k]];
    if (one.contains(other) || other.contains(one)) return;
    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (wide > 2 && high > 2) found.push(`${named(one)} lies on ${named(other)}`);
  }));
  return found;
}"""


def faults(frame: Frame) -> list[str]:
    """Each fault in a sentence: a frame that overflows, words wider than their room or cut off, parts on each other."""
    return frame.evaluate(_FAULTS)


_SPILLED = """() => {
  const { scrollHeight, clientHeight, scrollWidth, clientWidth } = document.querySelector("main");
  return [scrollHeight - clientHeight, scrollWidth - clientWidth];
}"""
_SPOTS = "all => all.map((node) => { const box = node.getBoundingClientRect(); return [box.x, box.y, box.width]; })"


def spilled(frame: Frame) -> list[int]:
    """Pixels by which a view's content is higher and wider than its room."""
    return frame.evaluate(_SPILLED)


def spots(frame: Frame, parts: str) -> list[list[float]]:
    """Where the parts of a view lie that a selector names, and how wide they are."""
    return frame.eval_on_selector_all(parts, _SPOTS)
