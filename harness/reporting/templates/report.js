(() => {
  const root = document.documentElement, toggle = document.querySelector(".toggle");
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  const show = () => toggle.setAttribute("aria-pressed", String(dark()));
  toggle.hidden = false;
  toggle.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; show(); });
  show();
  const mark = () => document.querySelectorAll(".scroll").forEach((box) =>
    box.classList.toggle("wide", box.scrollWidth > box.clientWidth + 1));
  addEventListener("load", mark);
  addEventListener("resize", mark);
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
