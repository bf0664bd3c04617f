"""The looks and the little behaviour of a report's page. Everything can be read without the script."""

from __future__ import annotations

from harness.reporting.themes import DARK, LIGHT, Theme


def _colours(theme: Theme) -> str:
    found = {"paper": theme.paper, "ink": theme.ink, "muted": theme.muted, "line": theme.grid, "best": theme.best,
             "accent": theme.states["COMPLETE"], "warn": theme.states["INTERRUPTED"]}  # fmt: skip
    return f"color-scheme: {theme.name}; " + " ".join(f"--{name}: {value};" for name, value in found.items())


STYLE = f"""
:root {{ {_colours(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root:not([data-theme]) {{ {_colours(DARK)} }} }}
:root[data-theme=dark] {{ {_colours(DARK)} }}
.dark {{ display: none; }}
@media (prefers-color-scheme: dark) {{
  :root:not([data-theme]) .light {{ display: none; }}
  :root:not([data-theme]) .dark {{ display: block; }}
}}
:root[data-theme=dark] .light {{ display: none; }}
:root[data-theme=dark] .dark {{ display: block; }}
* {{ box-sizing: border-box; }}
html {{ -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }}
body {{ margin: 0 auto; max-width: 64rem; padding: 2.5rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }}
code, pre {{ font-family: ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, monospace; font-size: 0.88em; }}
a {{ color: var(--accent); }}
:focus-visible {{ outline: 2px solid var(--accent); outline-offset: 2px; }}
.skip {{ position: absolute; left: -99rem; }}
.skip:focus {{ position: static; }}
header {{ position: relative; padding-right: 3.5rem; }}
.kind {{ margin: 0; color: var(--muted); font-size: 0.8rem; letter-spacing: 0.08em; text-transform: uppercase; }}
h1 {{ margin: 0.1rem 0 0.6rem; font-size: 2rem; line-height: 1.2; overflow-wrap: anywhere; }}
h2 {{ margin: 3rem 0 0.9rem; padding-top: 0.9rem; border-top: 1px solid var(--line); font-size: 1.3rem;
  line-height: 1.3; }}
p {{ max-width: 44rem; margin: 0.7rem 0; }}
.lead {{ font-size: 1.15rem; }}
.toggle {{ position: absolute; top: 0; right: 0; width: 2.6rem; height: 2.6rem; border: 1px solid var(--line);
  border-radius: 50%; background: none; color: var(--ink); font-size: 1.1rem; cursor: pointer; }}
nav ul {{ display: flex; flex-wrap: wrap; gap: 0.2rem 1.1rem; margin: 1.4rem 0 0; padding: 0; list-style: none;
  font-size: 0.92rem; }}
nav a {{ text-decoration: none; }}
nav a:hover {{ text-decoration: underline; }}
.note {{ max-width: 44rem; margin: 1rem 0; padding: 0.15rem 0 0.15rem 0.9rem; border-left: 3px solid var(--line);
  color: var(--muted); font-size: 0.94rem; }}
.note b {{ color: var(--ink); }}
.caution, .missing {{ border-left-color: var(--warn); }}
dl {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 0.9rem 1.5rem;
  margin: 1.2rem 0; }}
dt {{ color: var(--muted); font-size: 0.8rem; }}
dd {{ margin: 0; overflow-wrap: anywhere; }}
.commands {{ display: grid; grid-template-columns: fit-content(70%) 1fr; gap: 0.3rem 1.2rem; align-items: baseline; }}
.commands dd {{ color: var(--muted); font-size: 0.94rem; }}
.commands dt {{ color: var(--ink); font-size: 1rem; overflow-wrap: anywhere; }}
figure {{ margin: 1.6rem 0; }}
figcaption, caption {{ max-width: 44rem; color: var(--muted); font-size: 0.9rem; line-height: 1.45; text-align: left; }}
figcaption {{ margin-top: 0.4rem; }}
caption {{ padding-bottom: 0.5rem; caption-side: top; }}
figure img {{ width: 100%; min-width: 40rem; height: auto; }}
.picture img {{ width: auto; max-width: 100%; min-width: 0; background: #fff; }}
.scroll {{ overflow-x: auto; margin: 1.2rem 0; }}
figure .scroll {{ margin: 0; }}
table {{ border-collapse: collapse; font-size: 0.88rem; line-height: 1.35; font-variant-numeric: tabular-nums;
  border-top: 2px solid var(--ink); border-bottom: 2px solid var(--ink); }}
caption {{ width: max-content; max-width: min(44rem, 88vw); }}
th, td {{ padding: 0.32rem 0.75rem; text-align: left; white-space: nowrap; vertical-align: top; }}
td.long {{ white-space: normal; min-width: 18rem; overflow-wrap: anywhere; }}
th:first-child, td:first-child {{ padding-left: 0.25rem; }}
thead th {{ border-bottom: 1px solid var(--ink); font-weight: 600; vertical-align: bottom; }}
tbody tr + tr > * {{ border-top: 1px solid var(--line); }}
.number {{ text-align: right; }}
tr.strong > * {{ font-weight: 650; color: var(--best); }}
td.strong {{ font-weight: 650; }}
th button {{ all: unset; cursor: pointer; position: relative; }}
th button:focus-visible {{ outline: 2px solid var(--accent); }}
th button::after {{ content: "\\2195"; position: absolute; left: 100%; padding-left: 0.1rem; color: var(--muted);
  font-weight: 400; opacity: 0.55; }}
th[aria-sort=ascending] button::after {{ content: "\\2191"; color: var(--ink); opacity: 1; }}
th[aria-sort=descending] button::after {{ content: "\\2193"; color: var(--ink); opacity: 1; }}
.more {{ color: var(--muted); font-size: 0.88rem; }}
footer {{ margin-top: 3rem; padding-top: 0.9rem; border-top: 1px solid var(--line); color: var(--muted);
  font-size: 0.85rem; }}
@media (max-width: 40rem) {{
  body {{ padding: 1.25rem 1rem 3rem; }}
  h1 {{ font-size: 1.55rem; }}
  dl {{ grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 0.7rem 1rem; }}
  .commands {{ grid-template-columns: 1fr; gap: 0; }}
  .commands dd {{ margin-bottom: 0.6rem; }}
}}
@media print {{
  :root, :root[data-theme] {{ {_colours(LIGHT)} }}
  :root[data-theme] .dark, :root:not([data-theme]) .dark {{ display: none; }}
  :root[data-theme] .light, :root:not([data-theme]) .light {{ display: block; }}
  body {{ max-width: none; padding: 0; font-size: 10pt; }}
  .toggle, nav, .skip {{ display: none; }}
  figure, tr, .note {{ break-inside: avoid; }}
  figure img {{ min-width: 0; max-height: 9cm; width: auto; max-width: 100%; }}
  h2 {{ break-after: avoid; }}
  .scroll {{ overflow: visible; }}
  table {{ font-size: 7.5pt; }}
  th, td {{ padding: 0.15rem 0.35rem; }}
  th button::after {{ content: "" !important; }}
}}
"""

SCRIPT = """
(() => {
  const root = document.documentElement, toggle = document.querySelector(".toggle");
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  const show = () => toggle.setAttribute("aria-pressed", String(dark()));
  toggle.hidden = false;
  toggle.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; show(); });
  show();
  const value = (row, column) => {
    const text = row.cells[column].dataset.value;
    return text === "" ? null : text !== undefined ? Number(text) : row.cells[column].textContent;
  };
  const compare = (a, b, sign) => a === null || b === null ? (a === null) - (b === null)
    : sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...table.tBodies[0].rows];
        rows.sort((a, b) => compare(value(a, column), value(b, column), up ? 1 : -1));
        table.tBodies[0].append(...rows);
      });
    });
  }
})();
"""
