// Which key does what. Only deliberate single keys count: no repeats, no modifiers, nothing typed into a field.
export const COMMANDS = {
  left: ["Left is better", ["ArrowLeft", "a"]], right: ["Right is better", ["ArrowRight", "d"]],
  equal: ["Equally good", ["ArrowUp", "w"]], cant_tell: ["Cannot tell", ["ArrowDown", "s"]], both_bad: ["Both are bad", ["b"]],
  broken: ["A clip is broken", ["x"]], skip: ["Skip", ["n"]],
  undo: ["Undo the last answer", ["z", "Backspace"]], play: ["Play or pause", [" "]], back: ["One frame back", [","]], forward: ["One frame forward", ["."]],
  slower: ["Slower", ["-"]], faster: ["Faster", ["=", "+"]], loop: ["Loop on or off", ["l"]],
  digit: ["1 2 3: how much better; 4 to 9: reasons. In other modes: the clip or the level", ["1", "2", "3", "4", "5", "6", "7", "8", "9"]],
  tie: ["Ranking: the next clip ties with the last one", ["e"]], enter: ["Ranking: hand in", ["Enter"]],
  side: ["Marks: the other clip", ["m"]], span_start: ["Mark the start of a span", ["["]], span_end: ["Mark its end", ["]"]], keypoint: ["Mark a key frame", ["k"]],
  note: ["Write a note (Esc: back)", ["t"]], history: ["Your answers", ["h"]], help: ["This list", ["?"]],
};
const FIXED = ["digit", "enter"];
const SHOWN = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", " ": "Space", Backspace: "⌫" };
export const shown = (key) => SHOWN[key] ?? (key.length === 1 ? key.toUpperCase() : key);

export class Keys {
  constructor(onCommand) {
    this.onCommand = onCommand;
    this.load();
    document.addEventListener("keydown", (event) => this.pressed(event));
  }

  load() {
    let kept = {};
    try { kept = JSON.parse(localStorage.getItem("keys") ?? "{}"); } catch { /* somebody else's text */ }
    this.map = {};
    for (const [name, [, keys]] of Object.entries(COMMANDS)) this.map[name] = Array.isArray(kept[name]) ? kept[name].map(String) : keys;
    this.on = localStorage.getItem("keys-on") !== "no";
  }

  set(name, key) {
    for (const other of Object.keys(this.map)) this.map[other] = this.map[other].filter((k) => k !== key);
    this.map[name] = [key];
    localStorage.setItem("keys", JSON.stringify(this.map));
  }

  reset() { localStorage.removeItem("keys"); this.load(); }
  turn(on) { this.on = on; localStorage.setItem("keys-on", on ? "yes" : "no"); }

  pressed(event) {
    if (this.learning) {
      event.preventDefault(); event.stopPropagation();
      if (event.key.length === 1 || event.key.startsWith("Arrow") || event.key === "Backspace") this.set(this.learning, event.key.length === 1 ? event.key.toLowerCase() : event.key);
      if (!["Shift", "Control", "Alt", "Meta"].includes(event.key)) { this.learning = undefined; this.onCommand("learned"); }
      return;
    }
    const shifted = event.getModifierState?.("AltGraph"); // how many keyboards type [ and ]
    if (!this.on || event.repeat || event.isComposing || ((event.ctrlKey || event.altKey) && !shifted) || event.metaKey || event.defaultPrevented) return;
    const target = event.target;
    if (target instanceof HTMLElement && (target.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(target.tagName) && !["checkbox", "range"].includes(target.type))) return;
    if (document.querySelector("dialog[open]") && event.key !== "?") return;
    const key = this.meant(event);
    // Enter and Space work the control that has the focus; arrows move a focused slider.
    if (target instanceof HTMLElement && ["BUTTON", "A", "SUMMARY"].includes(target.tagName) && (key === "Enter" || key === " ")) return;
    if (target instanceof HTMLInputElement && (target.type === "range" ? key.startsWith("Arrow") : key === " ")) return;
    const name = Object.keys(this.map).find((command) => this.map[command].includes(key));
    if (!name) return;
    event.preventDefault();
    this.onCommand(name, key);
  }

  // A key of another alphabet means the letter in its place, unless it was given a meaning of its own.
  meant(event) {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const own = Object.values(this.map).some((keys) => keys.includes(key));
    return !own && /^[^\x00-\x7f]$/.test(key) && /^Key[A-Z]$/.test(event.code) ? event.code[3].toLowerCase() : key;
  }

  table(body) {
    body.replaceChildren(...Object.entries(COMMANDS).map(([name, [what]]) => {
      const row = document.createElement("tr"), label = document.createElement("th"), cell = document.createElement("td");
      label.scope = "row"; label.textContent = what;
      if (FIXED.includes(name)) cell.textContent = name === "digit" ? "1 – 9" : "Enter";
      else {
        const change = document.createElement("button");
        change.type = "button"; change.textContent = this.map[name].map(shown).join("  ") || "none";
        change.setAttribute("aria-label", `${what}: ${change.textContent}. Change`);
        change.addEventListener("click", () => { this.learning = name; change.textContent = "press a key"; });
        cell.append(change);
      }
      row.append(label, cell);
      return row;
    }));
  }
}
