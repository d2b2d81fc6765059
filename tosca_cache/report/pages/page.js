"use strict";
// Values under the pointer or the arrow keys, sorting and searching of tables, curves that are ticked, brushing.
const tip = document.getElementById("tip");
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
let lit = null;

function show(mark, x, y) {
  if (lit) lit.classList.remove("lit");
  lit = mark;
  if (!mark) { tip.hidden = true; return; }
  mark.classList.add("lit");
  tip.textContent = mark.dataset.tip;
  const photo = mark.dataset.photo && document.querySelector(`img[data-key="${CSS.escape(mark.dataset.photo)}"]`);
  if (photo) { const copy = new Image(); copy.src = photo.src; copy.alt = ""; tip.prepend(copy); }
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(x + 12, innerWidth - box.width - 4)) + "px";
  tip.style.top = (y + 16 + box.height > innerHeight ? Math.max(4, y - box.height - 10) : y + 16) + "px";
}

for (const chart of all(".chart[tabindex]")) {
  const over = event => { const mark = event.target.closest("[data-tip]"); show(mark && mark.dataset.tip ? mark : null, event.clientX, event.clientY); };
  chart.addEventListener("pointermove", over);
  chart.addEventListener("pointerdown", over);
  chart.addEventListener("pointerleave", () => show(null));
  chart.addEventListener("blur", () => show(null));
  chart.addEventListener("keydown", event => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: "first", End: "last" }[event.key];
    if (event.key === "Escape") show(null);
    if (step === undefined) return;
    event.preventDefault();
    const marks = all("[data-tip]", chart).filter(mark => mark.dataset.tip && !mark.closest("[hidden]") && !mark.classList.contains("out"));
    if (!marks.length) return;
    const at = marks.indexOf(lit);
    const next = step === "first" ? 0 : step === "last" ? marks.length - 1 : at < 0 ? (step > 0 ? 0 : marks.length - 1) : Math.min(Math.max(at + step, 0), marks.length - 1);
    const box = marks[next].getBoundingClientRect();
    show(marks[next], box.left + box.width / 2, box.top + box.height / 2);
  });
}

const valueOf = td => td && (td.dataset.value !== undefined ? Number(td.dataset.value) : td.textContent.trim());
for (const table of all("table")) {
  const heads = all("thead th", table);
  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
    const body = table.tBodies[0], rows = [...body.rows];
    const numbers = rows.some(row => row.cells[column]?.dataset.value !== undefined);
    const was = head.getAttribute("aria-sort");
    const down = was === "none" ? numbers : was === "ascending";
    heads.forEach(other => other.hasAttribute("aria-sort") && other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const keyed = rows.map(row => [valueOf(row.cells[column]), row]);
    keyed.sort(([a], [b]) => {
      if (numbers) {
        const x = typeof a === "number" ? a : null, y = typeof b === "number" ? b : null;
        return x === null || y === null ? (x === null) - (y === null) : down ? y - x : x - y;
      }
      return (down ? -1 : 1) * String(a).localeCompare(String(b), undefined, { numeric: true });
    });
    body.append(...keyed.map(([, row]) => row));
  }));
}

for (const field of all(".search")) {
  const block = field.closest(".block");
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().trim(), rows = all("tbody tr", block);
    let left = 0;
    for (const row of rows) { row.hidden = words !== "" && !row.textContent.toLowerCase().includes(words); left += !row.hidden; }
    block.querySelector(".count").textContent = words ? `${left} of ${rows.length}` : "";
  });
}

// The axis of accuracies reaches over the curves that are shown: everything is moved, grid lines are drawn anew.
function rescale(chart) {
  const low = Number(chart.dataset.low), high = Number(chart.dataset.high), bottom = 240, top = 12;
  const value = y => low + (bottom - y) / (bottom - top) * (high - low);
  const dots = all("g[data-mark]", chart).filter(group => !group.hasAttribute("hidden")).flatMap(group => all(".dot", group));
  for (const dot of all("g[data-mark] .dot", chart)) dot.was ??= dot.getAttribute("transform").match(/[-\d.]+/g).map(Number);
  const ys = dots.map(dot => value(dot.was[1]));
  if (!ys.length) return;
  const room = Math.max((Math.max(...ys) - Math.min(...ys)) * 0.08, 0.5), least = Math.max(Math.min(...ys) - room, 0), most = Math.min(Math.max(...ys) + room, 100);
  const moved = y => bottom - (value(y) - least) / (most - least) * (bottom - top);
  for (const dot of all("g[data-mark] .dot", chart)) dot.setAttribute("transform", `translate(${dot.was[0]} ${moved(dot.was[1]).toFixed(1)})`);
  for (const line of all("g[data-mark] [points]", chart)) {
    line.was ??= line.getAttribute("points");
    line.setAttribute("points", line.was.replace(/([-\d.]+),([-\d.]+)/g, (_, x, y) => `${x},${Math.min(bottom, Math.max(top, moved(Number(y)))).toFixed(1)}`));
  }
  const grids = all("line.grid", chart), line = grids[0], text = line.nextElementSibling;
  const rough = (most - least) / 5, unit = 10 ** Math.floor(Math.log10(rough)), step = [1, 2, 2.5, 5, 10].map(f => f * unit).find(s => s >= rough * 0.999);
  const made = [];
  for (let n = Math.ceil(least / step - 1e-9); n * step <= most + 1e-9; n++) {
    const y = bottom - (n * step - least) / (most - least) * (bottom - top), rule = line.cloneNode(), name = text.cloneNode();
    rule.setAttribute("y1", y); rule.setAttribute("y2", y); name.setAttribute("y", y + 4);
    name.textContent = Number((n * step).toPrecision(6));
    made.push(rule, name);
  }
  line.before(...made);
  for (const old of grids) { old.nextElementSibling.remove(); old.remove(); }
}

const ticked = new Set();
for (const box of all("td > input[type=checkbox]")) {
  const apply = () => {
    const mark = CSS.escape(box.closest("tr").dataset.mark);
    for (const curve of all(`.chart [data-mark="${mark}"], .legend [data-mark="${mark}"]`, box.closest("article")))
      if (curve.matches("g, li")) { curve.toggleAttribute("hidden", !box.checked); ticked.add(curve.closest(".chart[data-low]")); }
  };
  box.addEventListener("change", () => { apply(); ticked.forEach(chart => chart && rescale(chart)); });
  apply();
}
ticked.forEach(chart => chart && rescale(chart));

for (const form of all(".brushing")) {
  const section = form.closest("section"), chart = section.querySelector(".chart.wide");
  const lines = all(".settings polyline", chart).map(line => [line, line.dataset.at.split(" ").map(Number)]);
  const scales = JSON.parse(chart.closest("[data-scales]").dataset.scales);
  const rest = new Map();
  for (const other of all("[data-mark]", section)) if (!other.matches(".settings polyline")) {
    const key = other.dataset.mark; rest.has(key) ? rest.get(key).push(other) : rest.set(key, [other]);
  }
  const fields = all("fieldset", form);
  const place = (n, value) => { const s = scales[n]; if (s.log && value <= 0) return 0; const at = s.log ? Math.log10(value) : value; return s.high > s.low ? (at - s.low) / (s.high - s.low) : 0.5; };
  const value = (n, at) => { const s = scales[n]; const v = s.low + at * (s.high - s.low); return Number((s.log ? 10 ** v : v).toPrecision(4)); };
  function limits(n) {
    const boxes = all("input[type=checkbox]", fields[n]);
    if (boxes.length) { const on = boxes.filter(box => box.checked).map(box => Number(box.value)); return at => on.some(k => Math.abs(at - place(n, k)) < 1e-3); }
    const [from, to] = ["from", "to"].map(name => fields[n].querySelector("." + name).value);
    const low = from === "" ? -Infinity : place(n, Number(from)), high = to === "" ? Infinity : place(n, Number(to));
    const bar = chart.querySelector(`.brushed[data-axis="${n}"]`), brush = chart.querySelector(`.brush[data-axis="${n}"]`);
    const y = Number(brush.getAttribute("y")), h = Number(brush.getAttribute("height"));
    const top = Math.min(1, high), bottom = Math.max(0, low), any = from !== "" || to !== "";
    bar.setAttribute("y", y + (1 - top) * h); bar.setAttribute("height", any ? Math.max(0, (top - bottom) * h) : 0);
    return at => at >= low - 1e-3 && at <= high + 1e-3;
  }
  function apply() {
    const tests = fields.map((_, n) => limits(n));
    let left = 0;
    for (const [line, at] of lines) {
      const inside = tests.every((test, n) => test(at[n]));
      left += inside;
      line.classList.toggle("out", !inside);
      for (const other of rest.get(line.dataset.mark) || []) other.matches("tr") ? other.hidden = !inside : other.classList.toggle("out", !inside);
    }
    form.querySelector(".count").textContent = `${left} of ${lines.length} settings`;
  }
  form.addEventListener("input", apply);
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  for (const brush of all(".brush", chart)) {
    const n = Number(brush.dataset.axis), boxes = all("input[type=checkbox]", fields[n]);
    const at = event => { const box = brush.getBoundingClientRect(); return Math.min(1, Math.max(0, 1 - (event.clientY - box.top) / box.height)); };
    let start = null;
    brush.addEventListener("pointerdown", event => { start = at(event); brush.setPointerCapture(event.pointerId); });
    brush.addEventListener("pointerup", event => {
      if (start === null) return;
      const [low, high] = [start, at(event)].sort((a, b) => a - b), click = high - low < 0.01;
      start = null;
      if (boxes.length) boxes.forEach(box => { const p = place(n, Number(box.value)); box.checked = click || (p >= low - 0.02 && p <= high + 0.02); });
      else { fields[n].querySelector(".from").value = click ? "" : value(n, low); fields[n].querySelector(".to").value = click ? "" : value(n, high); }
      apply();
    });
  }
  apply();
}
