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
  return x.toLocaleString("en", { maximumSignificantDigits: 5 });
}

function setUp(figure) {
  const area = figure.querySelector(".area");
  const data = figure.querySelector("script[type='application/json']");
  if (!data) return;
  const { x: [left, right], names, lines } = JSON.parse(data.textContent);
  const named = new Map(names);
  const cursor = figure.querySelector(".cursor");
  const tooltip = figure.querySelector(".tooltip");
  const all = figure.querySelector("button.all");
  const hidden = new Set();
  let share = 1; // where the cursor is, from 0 to 1

  function show() {
    const x = left + share * (right - left);
    const rows = [];
    lines.forEach((line, i) => {
      if (hidden.has(i) || line.kind === "points" || !line.x.length) return;
      const at = nearest(line.x, x);
      if (line.y[at] === null) return;
      const ends = line.low && line.low[at] !== null
        ? ` (${short(line.low[at])} … ${short(line.high[at])})` : "";
      rows.push({ ...line, at: line.x[at], text: short(line.y[at]) + ends, value: line.y[at] });
    });
    if (!rows.length) return leave();
    const step = rows[0].at;
    rows.sort((a, b) => (a.kind === "thin") - (b.kind === "thin") || b.value - a.value);
    tooltip.replaceChildren();
    const head = document.createElement("strong");
    const label = figure.querySelector(".x-label").textContent;
    head.textContent = named.has(step) ? `${label} = ${named.get(step)}` : `${short(step)} ${label}`;
    tooltip.append(head);
    for (const row of rows.slice(0, MOST_ROWS)) {
      const line = document.createElement("div");
      line.className = `row c${row.color}`;
      line.textContent = `${row.label}: ${row.text}`;
      tooltip.append(line);
    }
    if (rows.length > MOST_ROWS) tooltip.append(`and ${rows.length - MOST_ROWS} more`);
    const place = right > left ? (step - left) / (right - left) : 0.5;
    cursor.style.left = `${100 * place}%`;
    cursor.hidden = tooltip.hidden = false;
    const room = figure.getBoundingClientRect(), inner = area.getBoundingClientRect();
    const middle = inner.left - room.left + place * inner.width;
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

  function press(i, isShown) {
    if (isShown) hidden.delete(i); else hidden.add(i);
    for (const part of area.querySelectorAll(`[data-line="${i}"]`)) {
      part.classList.toggle("hidden", !isShown);
    }
    figure.querySelector(`button[data-line="${i}"]`).setAttribute("aria-pressed", isShown);
  }

  function point(event) {
    const box = area.getBoundingClientRect();
    share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    show();
  }

  area.addEventListener("pointermove", point);
  area.addEventListener("pointerdown", point);
  area.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "mouse") leave();
  });
  area.addEventListener("blur", leave);
  area.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -0.02, ArrowRight: 0.02, Home: -1, End: 1 }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    share = Math.min(1, Math.max(0, share + by));
    show();
  });
  const thin = [...lines.keys()].filter((i) => lines[i].kind === "thin");
  for (const button of figure.querySelectorAll("button[data-line]")) {
    const i = Number(button.dataset.line);
    button.addEventListener("click", () => {
      press(i, hidden.has(i));
      if (all) all.setAttribute("aria-pressed", thin.some((one) => !hidden.has(one)));
    });
    for (const [name, isStrong] of [["pointerenter", true], ["pointerleave", false]]) {
      button.addEventListener(name, () => {
        area.querySelector(`[data-line="${i}"]:not(.band)`).classList.toggle("strong", isStrong);
      });
    }
  }
  if (all) {
    all.addEventListener("click", () => {
      const isShown = all.getAttribute("aria-pressed") !== "true";
      thin.forEach((i) => press(i, isShown));
      all.setAttribute("aria-pressed", isShown);
    });
  }
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
