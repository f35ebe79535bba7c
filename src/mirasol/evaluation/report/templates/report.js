"use strict";
// The page reads without this script; it adds values under the pointer, playing by tap, and opens a folded section that is linked to.

const size = { width: 360, height: 190, top: 10, bottom: 24 };

function written(value, percent) {
  if (percent) return (value * 100).toFixed(1) + " %";
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3)));
}

function nearest(xs, x) {
  let best = 0;
  for (let i = 1; i < xs.length; i++) if (Math.abs(xs[i] - x) < Math.abs(xs[best] - x)) best = i;
  return best;
}

for (const figure of document.querySelectorAll(".chart")) {
  const box = JSON.parse(figure.dataset.chart);
  const svg = figure.querySelector("svg");
  const values = [...figure.querySelectorAll(".key b")];
  const last = values.map((value) => value.textContent);
  const name = figure.querySelector(".chart-name");
  const heading = name.textContent;
  const cursor = document.createElementNS(svg.namespaceURI, "line");
  cursor.setAttribute("class", "cursor");
  cursor.setAttribute("y1", size.top);
  cursor.setAttribute("y2", size.height - size.bottom);
  svg.addEventListener("pointermove", (event) => {
    const area = svg.getBoundingClientRect();
    const across = ((event.clientX - area.left) / area.width) * size.width;
    const x = ((across - box.left) / (box.right - box.left)) * box.high;
    const at = box.lines[0].x[nearest(box.lines[0].x, x)];
    const place = box.left + (at / box.high) * (box.right - box.left);
    cursor.setAttribute("x1", place);
    cursor.setAttribute("x2", place);
    svg.append(cursor);
    name.textContent = heading + " at step " + at.toLocaleString("en");
    box.lines.forEach((line, i) => { values[i].textContent = written(line.y[nearest(line.x, at)], box.percent); });
  });
  svg.addEventListener("pointerleave", () => {
    cursor.remove();
    name.textContent = heading;
    values.forEach((value, i) => { value.textContent = last[i]; });
  });
}

for (const player of document.querySelectorAll(".answer .player")) {
  player.addEventListener("click", () => player.classList.toggle("playing"));
}

function unfold() { // a link to a folded section opens it
  const fold = location.hash && document.querySelector(location.hash + " > details.fold");
  if (fold) fold.open = true;
}
addEventListener("hashchange", unfold);
unfold();
