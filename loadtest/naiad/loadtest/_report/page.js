"use strict";
// The charts are drawn already. This adds: values under the pointer, series to hide, a stretch of time to look into.
const TIP = document.createElement("div");
TIP.className = "tip";
TIP.hidden = true;
document.body.append(TIP);

class Chart {
  constructor(figure) {
    this.figure = figure;
    this.plot = figure.querySelector(".plot");
    this.svg = this.plot.querySelector("svg");
    this.series = [...this.svg.querySelectorAll("g.series")];
    this.columns = figure.dataset.columns.split(",").map(Number);
    const table = document.getElementById(figure.dataset.table);
    this.rows = table ? [...table.tBodies[0].rows] : [];
    this.places = this.rows.map((row) => Number(row.dataset.x));
    this.view = [0, 1];
    this.row = -1;
    this.cursor = this.overlay("cursor");
    this.choice = this.overlay("choice");
    this.listen();
  }

  overlay(name) {
    const element = document.createElement("div");
    element.className = name;
    element.hidden = true;
    this.plot.append(element);
    return element;
  }

  listen() {
    for (const button of this.figure.querySelectorAll(".legend button"))
      button.addEventListener("click", () => this.toggle(button));
    this.plot.addEventListener("pointermove", (event) => this.moved(event));
    this.plot.addEventListener("pointerleave", () => this.leave());
    this.plot.addEventListener("blur", () => this.leave());
    this.plot.addEventListener("keydown", (event) => this.pressed(event));
    if (this.figure.dataset.low === undefined) return;
    this.plot.addEventListener("pointerdown", (event) => this.down(event));
    this.plot.addEventListener("pointerup", (event) => this.up(event));
    this.plot.addEventListener("pointercancel", () => this.forget());
    this.plot.addEventListener("dblclick", () => zoom(0, 1));
  }

  toggle(button) {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    this.series[Number(button.dataset.series)].style.display = shown ? "" : "none";
  }

  fraction(event) {
    const box = this.plot.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  }

  value(fraction) { return this.view[0] + fraction * (this.view[1] - this.view[0]); }

  moved(event) {
    const fraction = this.fraction(event);
    if (this.from !== undefined) {
      const [left, right] = [Math.min(this.from, fraction), Math.max(this.from, fraction)];
      this.choice.hidden = right - left < 0.01;
      this.choice.style.left = `${left * 100}%`;
      this.choice.style.width = `${(right - left) * 100}%`;
    }
    this.show(this.nearest(this.value(fraction)));
  }

  nearest(place) {
    let best = -1;
    this.places.forEach((other, index) => {
      if (other < this.view[0] || other > this.view[1]) return;
      if (best < 0 || Math.abs(other - place) < Math.abs(this.places[best] - place)) best = index;
    });
    return best;
  }

  show(index) {
    this.row = index;
    if (index < 0) return this.leave();
    const cells = this.rows[index].cells, lines = [document.createElement("b")];
    lines[0].textContent = cells[0].textContent;
    this.series.forEach((group, number) => {
      const cell = cells[this.columns[number]];
      if (!cell || group.style.display === "none") return;
      const line = document.createElement("div"), key = document.createElement("i"), value = document.createElement("span");
      key.className = `key ${[...group.classList].filter((name) => name !== "series").join(" ")}`;
      value.textContent = cell.textContent;
      line.append(key, group.dataset.name, value);
      lines.push(line);
    });
    TIP.replaceChildren(...lines);
    TIP.hidden = this.cursor.hidden = false;
    const fraction = (this.places[index] - this.view[0]) / (this.view[1] - this.view[0]);
    this.cursor.style.left = `${fraction * 100}%`;
    const box = this.plot.getBoundingClientRect(), at = box.left + fraction * box.width;
    const left = at + 14 + TIP.offsetWidth > document.documentElement.clientWidth ? at - 14 - TIP.offsetWidth : at + 14;
    TIP.style.left = `${Math.max(4, left)}px`;
    TIP.style.top = `${box.top + 8}px`;
  }

  leave() { TIP.hidden = this.cursor.hidden = true; this.forget(); }

  forget() { this.from = undefined; this.choice.hidden = true; }

  pressed(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") { this.leave(); if (this.figure.dataset.low !== undefined) zoom(0, 1); }
    if (!step) return;
    event.preventDefault();
    const next = Math.min(this.rows.length - 1, Math.max(0, this.row + step));
    if (this.places[next] >= this.view[0] && this.places[next] <= this.view[1]) this.show(next);
  }

  down(event) {
    if (event.button !== 0 || event.target.closest("button")) return;
    this.from = this.fraction(event);
  }

  up(event) {
    if (this.from === undefined) return;
    const [left, right] = [this.from, this.fraction(event)].map((f) => this.value(f)).sort((a, b) => a - b);
    this.forget();
    if (right - left > 0.02 * (this.view[1] - this.view[0])) zoom(left, right);
  }

  look(start, end) {
    this.view = [start, end];
    this.svg.setAttribute("viewBox", `${start * 1000} 0 ${(end - start) * 1000} 1000`);
    const whole = start === 0 && end === 1;
    for (const word of this.plot.querySelectorAll(".word")) word.hidden = !whole && !word.classList.contains("above");
    const low = Number(this.figure.dataset.low), span = Number(this.figure.dataset.high) - low;
    const labels = this.figure.querySelector(".xlabels");
    labels.replaceChildren(...ticks(low + start * span, low + end * span).map(([value, text]) => {
      const label = document.createElement("span");
      label.textContent = text;
      label.style.left = `${(((value - low) / span - start) / (end - start)) * 100}%`;
      return label;
    }));
    this.plot.querySelector(".reset")?.remove();
    if (whole) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "reset";
    button.textContent = "Whole run";
    button.addEventListener("click", () => zoom(0, 1));
    this.plot.append(button);
  }
}

function ticks(low, high) {
  const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((part) => part * power).find((size) => size >= rough * 0.999);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9) + (step / power === 2.5 ? 1 : 0));
  const found = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index += 1)
    found.push([index * step, index === 0 ? "0" : (index * step).toFixed(digits).replace("-", "−")]);
  return found;
}

const CHARTS = [...document.querySelectorAll("figure.chart")].map((figure) => new Chart(figure));

function zoom(start, end) {
  for (const chart of CHARTS) if (chart.figure.dataset.low !== undefined) chart.look(start, end);
}

addEventListener("beforeprint", () => zoom(0, 1));
addEventListener("scroll", () => { TIP.hidden = true; }, { passive: true });

const SAVE = document.getElementById("save");
if (SAVE) {
  SAVE.hidden = false;
  SAVE.addEventListener("click", () => {
    const text = JSON.stringify(JSON.parse(document.getElementById("content").textContent), null, 2);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([`${text}\n`], { type: "application/json" }));
    link.download = "report.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
}
