// Charts: what is below the pointer, or below the cursor that the arrow keys move, and lines that
// are hidden by their buttons. Without scripts the page shows the same charts.
"use strict";

const MOST_ROWS = 12; // of a tooltip

function nearest(xs, x) {
  let low = 0, high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= x) low = middle; else high = middle;
  }
  return Math.abs(xs[low] - x) <= Math.abs(xs[high] - x) ? low : high;
}

function short(x) {
  return x.toLocaleString("en", Number.isInteger(x) ? {} : { maximumSignificantDigits: 5 });
}

function isJoined(line) {
  return line.kind === "main" || line.kind === "thin";
}

function setUp(figure) {
  const area = figure.querySelector(".area");
  const data = figure.querySelector("script[type='application/json']");
  if (!data) return;
  const { x: [left, right], y: [bottom, top], names, xs, lines } = JSON.parse(data.textContent);
  for (const line of lines) line.x = xs[line.x];
  const named = new Map(names);
  const label = figure.querySelector(".x-label").textContent;
  const cursor = figure.querySelector(".cursor");
  const tooltip = figure.querySelector(".tooltip");
  const all = figure.querySelector("button.all");
  const thin = [...lines.keys()].filter((i) => lines[i].kind === "thin");
  const hidden = new Set();
  let share = 1; // where the cursor is, from 0 to 1
  area.setAttribute("role", "slider"); // the arrow keys move it
  area.setAttribute("aria-valuemin", 0);
  area.setAttribute("aria-valuemax", 100);
  area.setAttribute("aria-valuenow", 100);

  function place(x) {
    return named.has(x) ? `${label} = ${named.get(x)}` : `${short(x)} ${label}`;
  }

  // What a line has at x; nothing where it does not reach.
  function read(line, x) {
    const first = line.x[0], last = line.x[line.x.length - 1], near = (right - left) / 100;
    if (!line.x.length || x < first - near || x > last + near) return null;
    const at = nearest(line.x, x);
    if (line.y[at] === null) return null;
    const ends = line.low && line.low[at] !== null
      ? ` (${short(line.low[at])} … ${short(line.high[at])})` : "";
    return { line, at: line.x[at], value: line.y[at], text: short(line.y[at]) + ends };
  }

  // The point of those that no line joins that is nearest to the pointer.
  function nearestPoint(x, y) {
    let best = null, least = 0.05;
    lines.forEach((line, i) => {
      if (hidden.has(i) || isJoined(line)) return;
      line.x.forEach((at, k) => {
        if (line.y[k] === null) return;
        const far = Math.hypot((at - x) / (right - left), (line.y[k] - y) / (top - bottom));
        if (far < least) {
          least = far;
          best = { line, at, value: line.y[k], text: short(line.y[k]) };
        }
      });
    });
    return best;
  }

  function show(y) {
    const x = left + share * (right - left);
    const rows = lines.filter((line, i) => !hidden.has(i) && isJoined(line))
      .map((line) => read(line, x)).filter((row) => row);
    const point = y === undefined ? null : nearestPoint(x, y);
    if (point) rows.push(point);
    if (!rows.length) return leave();
    const far = (row) => Math.abs(row.at - x);
    const step = rows.reduce((a, b) => (far(b) < far(a) ? b : a)).at;
    const rank = (row) => (row.line.kind === "thin" ? 1 : 0);
    rows.sort((a, b) => rank(a) - rank(b) || b.value - a.value);
    const head = document.createElement("strong");
    head.textContent = place(step);
    const shown = rows.slice(0, MOST_ROWS).map((row) => {
      const line = document.createElement("div");
      line.className = `row c${row.line.color}`;
      const where = row.at === step ? "" : ` at ${named.get(row.at) ?? short(row.at)}`;
      line.textContent = `${row.line.label}: ${row.text}${where}`;
      return line;
    });
    const rest = rows.length > MOST_ROWS ? `and ${rows.length - MOST_ROWS} more` : "";
    tooltip.replaceChildren(head, ...shown, rest);
    area.setAttribute("aria-valuetext", tooltip.textContent);
    area.setAttribute("aria-valuenow", Math.round(100 * share));
    put(right > left ? (step - left) / (right - left) : 0.5);
  }

  function put(at) {
    cursor.style.left = `${100 * at}%`;
    cursor.hidden = tooltip.hidden = false;
    const room = figure.getBoundingClientRect(), inner = area.getBoundingClientRect();
    const middle = inner.left - room.left + at * inner.width;
    const width = tooltip.offsetWidth;
    const beside = middle + 12 + width > room.width ? middle - 12 - width : middle + 12;
    const isNarrow = room.width < 480; // where it would hide the lines
    const below = area.offsetTop + (isNarrow ? area.offsetHeight + 22 : 8);
    tooltip.style.left = `${isNarrow ? 0 : Math.max(0, Math.min(beside, room.width - width))}px`;
    tooltip.style.top = `${below}px`;
  }

  function leave() {
    cursor.hidden = tooltip.hidden = true;
  }

  function point(event) {
    const box = area.getBoundingClientRect();
    share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    show(top - (event.clientY - box.top) / box.height * (top - bottom));
  }

  // To the next point of the first line that is shown.
  function move(by) {
    const line = lines.find((one, i) => !hidden.has(i) && isJoined(one) && one.x.length);
    if (!line) return;
    const last = line.x.length - 1;
    const now = nearest(line.x, left + share * (right - left));
    const next = by === "Home" ? 0 : by === "End" ? last : now + by;
    share = (line.x[Math.min(last, Math.max(0, next))] - left) / (right - left);
    show();
  }

  function press(i, isShown) {
    if (isShown) hidden.delete(i); else hidden.add(i);
    for (const part of area.querySelectorAll(`[data-line="${i}"]`)) {
      part.classList.toggle("hidden", !isShown);
    }
    figure.querySelector(`button[data-line="${i}"]`).setAttribute("aria-pressed", isShown);
    if (!all) return;
    const number = thin.filter((one) => !hidden.has(one)).length;
    const state = number === thin.length ? "true" : number ? "mixed" : "false";
    all.setAttribute("aria-pressed", state);
  }

  area.addEventListener("pointermove", point);
  area.addEventListener("pointerdown", point);
  area.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "mouse") leave();
  });
  area.addEventListener("blur", leave);
  area.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, Home: "Home", End: "End" }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    move(by);
  });
  for (const button of figure.querySelectorAll("button[data-line]")) {
    const i = Number(button.dataset.line);
    button.addEventListener("click", () => press(i, hidden.has(i)));
    for (const [name, isStrong] of [["pointerenter", true], ["pointerleave", false]]) {
      button.addEventListener(name, () => {
        area.querySelector(`[data-line="${i}"]:not(.band)`).classList.toggle("strong", isStrong);
      });
    }
  }
  all?.addEventListener("click", () => {
    const isShown = all.getAttribute("aria-pressed") !== "true";
    thin.forEach((i) => press(i, isShown));
  });
}

document.querySelectorAll("figure.chart").forEach(setUp);

for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.parentElement.querySelector("code").textContent);
    button.textContent = "copied";
  });
}

// On paper nothing can be unfolded.
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details:not([open])")) {
    part.open = true;
    part.dataset.printed = "";
  }
});
addEventListener("afterprint", () => {
  for (const part of document.querySelectorAll("details[data-printed]")) {
    part.open = false;
    delete part.dataset.printed;
  }
});
