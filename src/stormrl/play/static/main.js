// The page: shows what the server tells and passes on what is wanted.

import { Connection } from "./connection.js";
import { Controls, element } from "./controls.js";
import { Curves, PolicyBars, drawLatent, number } from "./drawing.js";

const find = (id) => document.getElementById(id);
const SIDES = ["real", "dream"];
const MARKS = { real: [86, 180, 233], dream: [240, 170, 20] };
const KEPT = ["paused", "speed", "temperature", "view", "real", "dream"];

const curves = new Curves();
const bars = new PolicyBars();
const wanted = {};
let hello = null;
let settings = {};
let shownAt = [];

const connection = new Connection({ hello: greet, news: show, note, state });
const controls = new Controls((action) => connection.send("action", action));

function greet(message) {
  const first = hello === null;
  hello = message;
  find("game").textContent = message.game.replace(/^.*[/:]/, "").replace(/-v\d+$/, "");
  find("about").textContent =
    `Checkpoint ${message.checkpoint.toLocaleString("en")}, protocol ${message.protocol}. ` +
    `The dream begins with ${message.context} real frames.`;
  document.title = `${find("game").textContent} – stormrl play`;
  if (first) bars.use(message.actions, find("policy"));
  controls.last = undefined;
  controls.use(message, find("keys"), find("pad"));
  document.querySelector(".latents").hidden = !message.latent;
  curves.clear();
  // After a break the new session goes on as the old one was set.
  for (const [name, value] of Object.entries(wanted)) connection.send(name, value);
}

async function show(header, parts) {
  const pictures = await Promise.all(SIDES.map((side) => decoded(parts[side])));
  SIDES.forEach((side, index) => {
    drawFrame(find(side), pictures[index]);
    showFacts(find(side), header[side]);
    // A world model need not have a latent of classes.
    if (hello.latent) {
      drawLatent(find(`${side}-latent`), parts[`${side}_latent`], hello.latent, MARKS[side]);
    }
  });
  showSettings(header.settings);
  showHorizon(header.dream.steps);
  showPace(header);
  curves.add(header.points, header.step);
  curves.draw(settings.view === "dream");
  bars.draw(header.real.policy, header.dream.policy);
  document.body.dataset.frame = header.frame;
  document.body.dataset.step = header.step;
}

function decoded(bytes) {
  const blob = new Blob([bytes], { type: "image/png" });
  return createImageBitmap(blob, { colorSpaceConversion: "none" });
}

function drawFrame(side, picture) {
  side.querySelector(".frame").getContext("2d", { willReadFrequently: true }).drawImage(picture, 0, 0);
  picture.close();
}

function showFacts(side, game) {
  side.querySelector(".total").textContent = number(game.total);
  side.querySelector(".steps").textContent = game.steps;
  side.querySelector(".action").textContent = hello.actions[game.action]?.word.toLowerCase() ?? "–";
  side.querySelector(".over").hidden = !game.over;
}

function showSettings(now) {
  settings = now;
  document.querySelector("main").dataset.view = now.view;
  for (const side of SIDES) document.querySelector(`input[name=${side}][value=${now[side]}]`).checked = true;
  pressed("pause", now.paused, now.paused ? "Go on" : "Pause");
  pressed("record", now.recording, now.recording ? "Stop" : "Record");
  pressed("view", now.view === "dream");
  for (const name of ["speed", "temperature"]) {
    if (document.activeElement !== find(name)) find(name).value = now[name];
  }
  find("speed-text").textContent = `${now.speed} / s`;
  find("temperature-text").textContent = now.temperature.toFixed(1);
  controls.list?.querySelectorAll("li").forEach((item, index) => item.classList.toggle("now", index === now.action));
}

function pressed(id, on, text) {
  find(id).setAttribute("aria-pressed", on);
  if (text) find(id).querySelector("b").textContent = text;
}

// The bar is as long as the windows of training; the mark is as far as the agent learned to imagine.
function showHorizon(steps) {
  const share = (count) => `${Math.min(100, (100 * count) / hello.window)}%`;
  find("ahead").style.width = share(steps);
  find("imagined").style.left = share(hello.imagined);
}

function showPace({ fps, step_ms, recorded }) {
  const now = performance.now();
  shownAt = [...shownAt.filter((time) => now - time < 2000), now];
  const shown = shownAt.length > 1 ? ((shownAt.length - 1) * 1000) / (now - shownAt[0]) : 0;
  const tape = recorded ? `, ${recorded} recorded` : "";
  const pace = settings.paused ? "paused" : `${fps.toFixed(1)} steps/s, ${shown.toFixed(1)} shown/s, ${step_ms.toFixed(0)} ms each`;
  find("link-text").textContent = pace + tape;
}

function note({ type, files, text }) {
  const place = find("saved");
  if (type !== "saved") return place.replaceChildren(text ?? "");
  place.replaceChildren(...(files.length ? files.map(download) : ["Nothing was recorded."]));
}

function download(path) {
  const name = path.split("/").at(-1);
  const link = element("a", "", name);
  link.href = `recordings/${name}${location.search}`;
  link.download = name;
  link.title = path;
  return link;
}

function state(name, text) {
  find("link").dataset.state = name;
  find("link-text").textContent = text;
  shownAt = [];
}

function want(name, value) {
  if (KEPT.includes(name)) wanted[name] = value;
  connection.send(name, value);
}

const ORDERS = {
  pause: () => want("paused", !settings.paused),
  step: () => { want("paused", true); connection.send("step"); },
  sync: () => connection.send("sync"),
  reset: () => connection.send("reset"),
  hand: () => {
    const who = settings.real === "agent" || settings.dream === "agent" ? "you" : "agent";
    for (const side of SIDES) want(side, who);
  },
  record: () => connection.send("recording", !settings.recording),
  view: () => want("view", settings.view === "both" ? "dream" : "both"),
};
const SHORTCUTS = { p: "pause", n: "step", e: "sync", r: "reset", h: "hand", c: "record", b: "view" };

for (const [id, order] of Object.entries(ORDERS)) {
  find(id).addEventListener("click", (event) => {
    order();
    if (event.detail > 0) find(id).blur(); // Clicked, not typed: the space bar belongs to the game.
  });
}
addEventListener("keydown", (event) => {
  const order = ORDERS[SHORTCUTS[event.key.toLowerCase()]];
  if (order && !event.ctrlKey && !event.metaKey && !event.altKey && !event.repeat) order();
});
for (const side of SIDES) {
  for (const input of document.querySelectorAll(`input[name=${side}]`)) {
    input.addEventListener("change", () => want(side, input.value));
    input.addEventListener("click", (event) => { if (event.detail > 0) input.blur(); });
  }
}
for (const name of ["speed", "temperature"]) {
  find(name).addEventListener("input", () => want(name, Number(find(name).value)));
  find(name).addEventListener("pointerup", () => find(name).blur());
}
