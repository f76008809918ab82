// From keys and touch buttons to one of the game's actions.

const CODES = {
  ArrowUp: "UP", KeyW: "UP", ArrowDown: "DOWN", KeyS: "DOWN",
  ArrowLeft: "LEFT", KeyA: "LEFT", ArrowRight: "RIGHT", KeyD: "RIGHT",
  Space: "FIRE",
};
const CAPS = { UP: "↑", DOWN: "↓", LEFT: "←", RIGHT: "→", FIRE: "Space" };
const CROSS = ["UP", "LEFT", "RIGHT", "DOWN"];

export class Controls {
  // changed(action) is called whenever another action is held.
  constructor(changed) {
    this.changed = changed;
    this.held = new Set();
    this.actions = [];
    addEventListener("keydown", (event) => this.key(event, true));
    addEventListener("keyup", (event) => this.key(event, false));
    addEventListener("blur", () => this.release());
  }

  use({ actions, idle }, list, pad) {
    [this.actions, this.idle] = [actions, idle];
    this.used = new Set(actions.flatMap(({ held }) => held));
    this.release();
    showKeys(actions, list);
    this.showPad(pad);
    this.list = list;
  }

  key(event, down) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const digit = /^(Digit|Numpad)(\d)$/.exec(event.code);
    const button = digit ? digit[2] : CODES[event.code];
    if (!this.used?.has(button) || isTyping(event)) return;
    event.preventDefault();
    this.hold(button, down);
  }

  hold(button, down) {
    if (down) this.held.add(button); else this.held.delete(button);
    this.tell();
  }

  release() {
    this.held.clear();
    this.tell();
  }

  tell() {
    const action = this.action();
    if (action === this.last || action === undefined) return;
    this.last = action;
    this.changed(action);
  }

  // The action for which most of what is held is needed, and nothing else.
  action() {
    let best = this.idle;
    let most = 0;
    this.actions.forEach(({ held }, index) => {
      if (held.length > most && held.every((button) => this.held.has(button))) [best, most] = [index, held.length];
    });
    return best;
  }

  showPad(pad) {
    const cross = element("div", "cross");
    const others = element("div", "others");
    for (const button of this.used) {
      const touch = element("button", button, CROSS.includes(button) ? CAPS[button] : this.name(button));
      touch.setAttribute("aria-label", button.toLowerCase());
      const set = (down) => (event) => {
        event.preventDefault();
        touch.classList.toggle("held", down);
        this.hold(button, down);
      };
      touch.addEventListener("pointerdown", set(true));
      for (const end of ["pointerup", "pointercancel", "pointerleave"]) touch.addEventListener(end, set(false));
      (CROSS.includes(button) ? cross : others).append(touch);
    }
    pad.replaceChildren(cross, others);
    pad.hidden = this.used.size === 0;
  }

  name(button) {
    return this.actions.find(({ held }) => held.length === 1 && held[0] === button)?.word ?? button;
  }
}

function showKeys(actions, list) {
  list.replaceChildren(...actions.map(({ word, held }) => {
    const item = element("li");
    const caps = held.map((button) => element("kbd", "", CAPS[button] ?? button));
    item.append(...(caps.length ? caps : [element("kbd", "", "–")]), element("span", "", word.toLowerCase()));
    return item;
  }));
}

// A slider keeps its arrows, a button its space bar, while it has the focus.
function isTyping({ target, code }) {
  return target.matches?.("input") || (code === "Space" && target.matches?.("button"));
}

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}
