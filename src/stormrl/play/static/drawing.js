// Curves, bars and latents.

import { element } from "./controls.js";

const KEPT = 240;
const NAMES = ["reward", "continues", "value"];

export function colours() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(["real", "dream-mark", "line", "pale", "card", "ink"]
    .map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

export class Curves {
  constructor() {
    this.points = [];
    this.step = 0;
    this.palette = colours();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.palette = colours();
      this.draw();
    });
    addEventListener("resize", () => this.draw());
  }

  clear() {
    this.points = [];
    this.step = 0;
  }

  // `points` are those up to `step`; some may have been told before.
  add(points, step) {
    const fresh = Math.min(points.length, step - this.step);
    if (fresh > 0) this.points.push(...points.slice(points.length - fresh));
    this.points.splice(0, this.points.length - KEPT);
    this.step = step;
  }

  draw(dreamOnly = this.dreamOnly) {
    this.dreamOnly = dreamOnly;
    NAMES.forEach((name, index) => {
      const lines = [[index + 3, "dream-mark"]];
      if (!dreamOnly) lines.unshift([index, "real"]);
      this.drawOne(name, lines);
      const last = this.points.at(-1);
      const texts = last ? lines.map(([column]) => number(last[column])) : [];
      document.getElementById(`${name}-now`).textContent = texts.join("  |  ");
    });
  }

  drawOne(name, lines) {
    const { context, width, height } = prepared(document.getElementById(name));
    const values = this.points.flatMap((point) => lines.map(([column]) => point[column])).filter((v) => v !== null);
    const [low, high] = range(name, values);
    const x = (index) => 2 + (index * (width - 4)) / (KEPT - 1);
    const y = (value) => 4 + (1 - (value - low) / (high - low)) * (height - 8);
    context.strokeStyle = this.palette.line;
    context.lineWidth = 1;
    for (const level of [low, high, ...(low < 0 && high > 0 ? [0] : [])]) stroke(context, [[0, y(level)], [width, y(level)]]);
    context.lineWidth = 1.75;
    context.lineJoin = "round";
    for (const [column, colour] of lines) {
      context.strokeStyle = this.palette[colour];
      for (const run of runs(this.points, column)) stroke(context, run.map(([index, value]) => [x(index), y(value)]));
    }
    context.fillStyle = this.palette.pale;
    context.font = "10px system-ui, sans-serif";
    context.textAlign = "right";
    context.fillText(number(high), width - 2, 13);
    context.fillText(number(low), width - 2, height - 6);
  }
}

// Stretches of a column without gaps, as [index, value].
function runs(points, column) {
  const found = [[]];
  points.forEach((point, index) => {
    if (point[column] === null) found.push([]);
    else found.at(-1).push([index, point[column]]);
  });
  return found.filter((run) => run.length > 1);
}

function range(name, values) {
  if (name === "continues") return [0, 1];
  const low = Math.min(...values, name === "reward" ? 0 : Infinity);
  const high = Math.max(...values, name === "reward" ? 0 : -Infinity);
  if (!Number.isFinite(low)) return [0, 1];
  return high - low > 1e-6 ? [low, high] : [low - 0.5, high + 0.5];
}

function stroke(context, places) {
  context.beginPath();
  places.forEach(([x, y], index) => (index ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.stroke();
}

function prepared(canvas) {
  const scale = devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
  if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

export function number(value) {
  if (value === null || value === undefined) return "–";
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1").replace("-", "−");
}

export class PolicyBars {
  use(actions, place) {
    place.classList.toggle("many", actions.length > 9);
    this.bars = actions.map(({ word }) => {
      const bars = element("div", "bars");
      const pair = ["real", "dream"].map((side) => element("i", side));
      bars.append(...pair);
      place.append(element("span", "", word.toLowerCase()), bars);
      return pair;
    });
  }

  draw(real, dream) {
    this.bars.forEach((pair, action) => [real, dream].forEach((policy, side) => {
      pair[side].style.width = `${100 * policy[action]}%`;
    }));
  }
}

// `bytes`: K * C probabilities from 0 to 255, then K drawn classes.
export function drawLatent(canvas, bytes, [variables, classes], mark) {
  if (canvas.width !== classes) [canvas.width, canvas.height] = [classes, variables];
  const context = canvas.getContext("2d");
  const image = context.createImageData(classes, variables);
  const [red, green, blue] = mark;
  for (let index = 0; index < variables * classes; index++) {
    const share = Math.sqrt(bytes[index] / 255) * 0.55;
    image.data.set([24 + (red - 24) * share, 27 + (green - 27) * share, 33 + (blue - 33) * share, 255], 4 * index);
  }
  for (let row = 0; row < variables; row++) {
    const drawn = row * classes + bytes[variables * classes + row];
    image.data.set([red, green, blue, 255], 4 * drawn);
  }
  context.putImageData(image, 0, 0);
}
