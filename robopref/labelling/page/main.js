// The labelling page: shows a question, takes one key as its answer, and is at the next one before the server knows.
import { Refused, get, post, uuid } from "./api.js";
import { Feed } from "./feed.js";
import { COMMANDS, Keys, shown } from "./keys.js";
import { Outbox } from "./outbox.js";
import { Said } from "./said.js";
import { toggleTheme } from "./theme.js";

const $ = (id) => document.getElementById(id);
const SPEEDS = [0.25, 0.5, 1, 2, 4], UNDO = 3;
const wellFormed = (text) => text.toWellFormed?.() ?? text; // a field that is full may cut a character in two
const calm = matchMedia("(prefers-reduced-motion: reduce)");
let config, outbox, feed, keys, said, current, past = [], undoing, hiddenAt, tells = 0;

const names = (mode, n) => n === 1 ? ["Clip"] : mode === "pairs" ? ["Left", "Right"] : Array.from({ length: n }, (_, i) => `Clip ${i + 1}`);
const tell = (text) => { tells += 1; $("message").textContent = text; };

async function boot() {
  const token = new URLSearchParams(location.hash.slice(1)).get("t");
  if (token) {
    history.replaceState(null, "", location.pathname); // the secret leaves the address bar
    await post("/api/login", { token }).catch((error) => tell(error.message));
  }
  try { config = await get("/api/config"); }
  catch (error) {
    if (error.status === 401) { only("login"); return; }
    tell(`${error.message}; trying again`); setTimeout(boot, 2000); return;
  }
  document.documentElement.lang = config.lang;
  $("question").textContent = config.question;
  document.title = `${config.question} · robopref`;
  $("bar").hidden = false;
  $("organiser").hidden = config.role !== "organiser";
  $("slow").textContent = Math.abs(config.slow_motion - 1) > 0.005 ? `shown at ${config.slow_motion.toFixed(2)} × real time` : "";
  outbox = new Outbox(config.project, config.person, saved, receipt);
  await outbox.start();
  feed = new Feed($("stage"), config, names, fed, lost);
  feed.onTick = (player) => { if (player === current?.player) ticked(player); };
  keys = keys ?? new Keys(command);
  buttons();
  await feed.fill();
}

function only(id) { for (const name of ["login", "wait", "done", "work"]) $(name).hidden = name !== id; }

function fed() {
  progress(feed.progress);
  if (current) return;
  if (feed.ready.length) { next(); return; }
  if (feed.trouble) { tell(feed.trouble.message); if (feed.trouble.status === 401) only("login"); return; }
  const { finished, waiting, leased, ready, closed } = feed.progress;
  only(!finished && (waiting || leased) ? "wait" : "done");
  $("done-text").textContent = finished ? "Everything that was asked has an answer. Thank you!"
    : ready ? "You have answered or skipped all that can be asked of you. Thank you!"
      : closed ? `No question is left: ${closed} were taken out, because a clip cannot be made or was called broken.` : "No question is left. Thank you!";
  $("wait-text").textContent = waiting ? `The next clips are being made (${waiting} questions wait for theirs).` : "Everything left is with other people right now.";
}

function progress({ done = 0, target = 0, mine = 0 }) {
  $("progress").max = Math.max(1, target); $("progress").value = Math.min(done, target);
  $("progress-text").textContent = `${done} of ${target}${mine !== done ? ` (${mine} yours)` : ""}`;
}

function saved({ writing, waiting, refused, trouble }) {
  const told = writing ? `writing ${writing}` : waiting ? `${waiting} not saved yet` : refused ? `${refused} refused` : "saved";
  $("saved").textContent = trouble && waiting ? `${told}: ${trouble}` : told;
  $("saved").classList.toggle("waiting", Boolean(waiting && trouble) || Boolean(refused));
}

function next() {
  current = feed.take();
  if (!current) { fed(); return; }
  present(current);
}

function present(question) {
  only("work");
  said = new Said(question.clips.length); // nothing of the last question leaks into this one
  const mine = said, player = question.player;
  $("note").value = "";
  player.setRate(1); player.loop = $("loop").checked; $("speed").value = "1";
  $("scrub").max = player.frames - 1;
  $("side").replaceChildren(...names(question.mode, question.clips.length).map((name, n) => new Option(name, n)));
  refresh();
  document.dispatchEvent(new CustomEvent("shown", { detail: { name: question.name, at: performance.now() } }));
  player.element.addEventListener("failed", () => { if (current === question) { refresh(); tell("A clip cannot be played: say “broken” or skip."); } });
  player.show(calm.matches).then((at) => {
    mine.firstAt = at;
    document.dispatchEvent(new CustomEvent("firstframe", { detail: { name: question.name, at, after: at - mine.shownAt } }));
    if (said === mine) refresh();
  });
}

function ticked(player) {
  const frame = player.frame;
  if (document.activeElement !== $("scrub") || player.playing) $("scrub").value = frame;
  $("frame").textContent = `${frame + 1} / ${player.frames}`;
  $("play").textContent = player.playing ? "Pause" : "Play";
}

function early() {
  if (!current || undoing) return "wait a moment";
  if (said.firstAt === undefined) return "the clips are still loading";
  return performance.now() - said.firstAt < config.minimum ? "look at the clips first" : "";
}

function send(kind, body, more = {}) {
  const event = { uid: uuid(), kind, body, ...more };
  const kept = outbox.add(event);
  return { ...event, kept };
}

function answer(choice, extra = {}, key = undefined) {
  const other = choice === "broken" || choice === "skip";
  if (!current || undoing || (current.player.failed && !other)) return;
  const why = other ? "" : early();
  if (why) { tell(why); return; }
  const place = { item: current.item, slot: current.slot, gen: current.gen, token: current.token };
  const note = wellFormed($("note").value.trim());
  const question = current;
  question.player.hide(); // the next question first, the rest in the background
  const body = other ? { ...(note && { note }), agent: navigator.userAgent.slice(0, 300) } : said.body(choice, extra, question.player, question, note, key);
  const follower = feed.take();
  current = follower;
  if (follower) present(follower);
  feed.pending.add(question.name);
  const event = send(other ? choice : "answer", body, place);
  past.push({ question, uid: event.uid, choice });
  if (past.length > UNDO) past.shift().question.player.close();
  const told = tells;
  event.kept.then(() => { if (tells === told) tell(`${COMMANDS[choice]?.[0] ?? choice}.`); });
  feed.fill();
}

function undo(entry = past.pop()) {
  if (!entry) { tell("Nothing to undo here: see History."); return; }
  if (undoing) return;
  if (current) { feed.putBack(current); current = undefined; }
  undoing = entry;
  feed.pending.add(entry.name ?? entry.question.name);
  undoing.sent = send("undo", {}, { supersedes: entry.uid, tab: feed.tab }).uid;
  tell(`Taking back: ${COMMANDS[entry.choice]?.[0] ?? entry.choice}`);
}

function receipt(told, event, counts) {
  if (counts) progress(counts);
  if (told.status === "rejected") tell(`Not taken: ${told.reason}`);
  if (told.status === "uncounted") tell(`Kept, but not counted: ${told.reason}`);
  if (undoing?.sent !== event.uid) {
    if (event.item && undoing?.uid !== event.uid) feed.pending.delete(`${event.item}/${event.slot}`);
    return;
  }
  feed.pending.delete(undoing.name ?? undoing.question.name);
  const { question, choice } = undoing;
  undoing = undefined;
  if (!told.assignment) { question?.player.close(); tell(`Could not be taken back: ${told.reason}`); if (!current) next(); return; }
  current = question ? { ...question, ...told.assignment, player: question.player } : feed.make(told.assignment);
  feed.current = current;
  present(current);
  tell(`Was: ${COMMANDS[choice]?.[0] ?? choice}. Answer it anew.`);
}

function lost(question) {
  tell("This question went to somebody else after a long pause.");
  question.player.close();
  current = undefined; feed.current = undefined;
  next(); feed.fill();
}

const ANSWERS = {
  pairs: () => ["left", "right", "equal", "cant_tell", ...(config.both_bad ? ["both_bad"] : [])],
  ranking: (n) => [...Array(n).keys(), "tie", "enter", "cant_tell"], best_worst: (n) => [...Array(n).keys(), "cant_tell"],
  rating: () => [...Array(config.levels).keys(), "cant_tell"], flag: () => ["left", "right", "cant_tell"],
};
const WORDS = { tie: "Next one ties", enter: "Hand in" };

function label(mode, what) {
  if (mode === "flag" && what === "left") return "Failure";
  if (mode === "flag" && what === "right") return "Success";
  if (mode === "rating" && Number.isInteger(what)) return ["1 very bad", "2 bad", "3 fair", "4 good", "5 very good"][what] ?? String(what + 1);
  if (Number.isInteger(what)) {
    const at = said.tiers.findIndex((tier) => tier.includes(what));
    return at < 0 ? `Clip ${what + 1}` : mode === "ranking" ? `Clip ${what + 1}: place ${at + 1}` : `Clip ${what + 1}: best`;
  }
  return WORDS[what] ?? COMMANDS[what][0];
}

function refresh() {
  if (!current || !said) return;
  const mode = current.mode, list = [...ANSWERS[mode](current.clips.length), "broken", "skip"];
  if ($("answers").dataset.for !== `${mode}${current.clips.length}`) {
    $("answers").dataset.for = `${mode}${current.clips.length}`;
    $("answers").replaceChildren(...list.map((what) => {
      const button = document.createElement("button");
      button.type = "button"; button.dataset.answer = what;
      button.addEventListener("click", () => command(Number.isInteger(what) ? "digit" : what, Number.isInteger(what) ? String(what + 1) : undefined));
      return button;
    }));
  }
  for (const [n, button] of [...$("answers").children].entries()) {
    const what = list[n], key = Number.isInteger(what) ? String(what + 1) : keys?.map[what]?.[0];
    const hint = document.createElement("kbd");
    hint.textContent = key ? shown(key) : ""; hint.setAttribute("aria-hidden", "true");
    button.replaceChildren(label(mode, what), ...(key ? [hint] : []));
    button.disabled = current.player.failed && !["broken", "skip"].includes(what);
    button.classList.toggle("main", what === "left" || what === "right");
    if (Number.isInteger(what) && mode !== "rating") button.setAttribute("aria-pressed", String(said.order.includes(what)));
  }
  $("strength-group").hidden = mode !== "pairs";
  for (const button of document.querySelectorAll("[data-strength]")) button.setAttribute("aria-pressed", String(Number(button.dataset.strength) === said.strength));
  for (const button of document.querySelectorAll("[data-reason]")) button.setAttribute("aria-pressed", String(said.reasons.has(button.dataset.reason)));
  $("side").value = String(said.side);
  current.player.figures.forEach((figure, n) => figure.classList.toggle("marked", n === said.side && Boolean(said.spans.length || said.keypoints.length || said.open)));
  const title = names(mode, current.clips.length);
  $("marks").replaceChildren(...[...said.spans.map(([s, a, b]) => `${title[s]} ${a}–${b - 1}`), ...said.keypoints.map(([s, f]) => `${title[s]} ◆ ${f}`), ...(said.open ? [`${title[said.open[0]]} ${said.open[1]}–…`] : [])].map((text) => {
    const item = document.createElement("li"); item.textContent = text; return item;
  }));
}

function digit(key) {
  const n = Number(key), mode = current.mode;
  if (mode === "pairs") {
    if (n <= 3) said.toggleStrength(n); else if (config.reasons[n - 4]) said.toggleReason(config.reasons[n - 4]);
  } else if (mode === "rating") { if (n <= config.levels) answer("rated", { rating: n }, key); return; }
  else if (n <= current.clips.length) {
    said.place(n - 1);
    if (mode === "best_worst" && said.order.length === 2) { answer("chosen", { best: said.order[0], worst: said.order[1] }, key); return; }
    if (mode === "best_worst") tell(said.order.length ? `Clip ${said.order[0] + 1} is best. Which is worst?` : "Which is best?");
    if (mode === "ranking" && said.order.length < current.clips.length) tell(`Place ${said.tiers.length + 1}: which comes next?`);
    if (mode === "ranking" && said.order.length === current.clips.length) tell("All placed: Enter hands in, a digit takes one back.");
  }
  refresh();
}

function command(name, key) {
  if (name === "learned") { keys.table($("keys")); $("answers").dataset.for = ""; refresh(); return; }
  if (name === "help") { toggle($("help"), () => { keys.table($("keys")); $("keys-on").checked = keys.on; }); return; }
  if (name === "history") { toggle($("history"), showHistory); return; }
  if (name === "undo") { undo(); return; }
  if (!current) return;
  const player = current.player, clip = current.clips[said.side];
  const step = () => clip.first + Math.min(player.frame, clip.frames - 1) * clip.stride;
  const actions = {
    play: () => (player.playing ? player.pause() : player.play()), back: () => player.step(-1), forward: () => player.step(1),
    slower: () => rate(-1), faster: () => rate(1), loop: () => { $("loop").checked = player.loop = !player.loop; }, note: () => $("note").focus(),
    side: () => { said.side = (said.side + 1) % current.clips.length; }, span_start: () => { said.startSpan(step()); },
    span_end: () => { tell(said.endSpan(step())); }, keypoint: () => { tell(said.addKeypoint(step())); },
    digit: () => digit(key), tie: () => { said.tieNext = true; tell("The next clip ties with the last one."); },
    enter: () => { if (current.mode === "ranking") { if (said.order.length === current.clips.length) answer("ranked", { ranking: said.tiers }, key); else tell("Place every clip first."); } },
  };
  if (actions[name]) { actions[name](); refresh(); return; }
  if (current.mode === "flag" && (name === "left" || name === "right")) { answer(name === "right" ? "success" : "failure", {}, key); return; }
  if ([...ANSWERS[current.mode](current.clips.length), "broken", "skip"].includes(name)) answer(name, {}, key);
}

function rate(by) {
  const at = Math.max(0, Math.min(SPEEDS.length - 1, SPEEDS.indexOf(current.player.rate) + by));
  current.player.setRate(SPEEDS[at]); $("speed").value = String(SPEEDS[at]);
}

function toggle(dialog, prepare) {
  if (dialog.open) { dialog.close(); return; }
  prepare();
  dialog.showModal();
}

async function showHistory() {
  const list = $("history-list");
  list.replaceChildren();
  let answers;
  try { ({ answers } = await get("/api/history")); } catch (error) { list.textContent = error.message; return; }
  list.replaceChildren(...answers.map((one) => {
    const item = document.createElement("li");
    const state = one.undone ? ", taken back" : one.counted ? "" : ", not counted";
    item.textContent = `${COMMANDS[one.choice]?.[0] ?? one.choice}${state}${one.note ? ` “${one.note}”` : ""} · ${new Date(one.t_ms).toLocaleTimeString()} `;
    if (one.counted && !one.undone) {
      const back = document.createElement("button");
      back.type = "button"; back.textContent = "Answer anew"; back.setAttribute("aria-label", `Answer anew: ${item.textContent}`);
      back.addEventListener("click", () => {
        $("history").close();
        const at = past.findIndex((entry) => entry.uid === one.uid);
        undo(at >= 0 ? past.splice(at, 1)[0] : { uid: one.uid, choice: one.choice, name: one.name });
      });
      item.append(back);
    }
    return item;
  }));
}

function buttons() {
  if (buttons.wired) return;
  buttons.wired = true;
  $("reasons").append(...config.reasons.map((name, n) => {
    const button = document.createElement("button");
    button.type = "button"; button.dataset.reason = name; button.textContent = n + 4 <= 9 ? `${n + 4} ${name}` : name;
    button.addEventListener("click", () => { said.toggleReason(name); refresh(); });
    return button;
  }));
  for (const button of document.querySelectorAll("[data-key]")) button.addEventListener("click", () => command(button.dataset.key));
  for (const button of document.querySelectorAll("[data-strength]")) button.addEventListener("click", () => { said.toggleStrength(Number(button.dataset.strength)); refresh(); });
  for (const button of document.querySelectorAll("dialog .close")) button.addEventListener("click", () => button.closest("dialog").close());
  $("scrub").addEventListener("input", () => { if (current) { current.player.pause(); current.player.seek(Number($("scrub").value)); } });
  $("speed").addEventListener("change", () => { current?.player.setRate(Number($("speed").value)); $("speed").blur(); });
  $("loop").addEventListener("change", () => { if (current) current.player.loop = $("loop").checked; });
  $("side").addEventListener("change", () => { said.side = Number($("side").value); refresh(); });
  $("keys-on").addEventListener("change", () => keys.turn($("keys-on").checked));
  $("keys-reset").addEventListener("click", () => { keys.reset(); command("learned"); });
  $("note").addEventListener("keydown", (event) => { if (event.key === "Escape") { event.preventDefault(); $("note").blur(); } });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) hiddenAt = performance.now(); else if (said && hiddenAt) { said.away += performance.now() - hiddenAt; hiddenAt = undefined; }
  });
  window.addEventListener("beforeunload", (event) => { if (outbox.writing + outbox.waiting) event.preventDefault(); });
}

window.addEventListener("hashchange", () => { if (location.hash.startsWith("#t=")) location.reload(); }); // a link opened in this very tab
$("theme").addEventListener("click", toggleTheme);
$("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const given = $("token").value.trim();
  const token = given.includes("#t=") ? given.split("#t=")[1] : given;
  try { await post("/api/login", { token }); location.reload(); } // whatever this page held before is given out anew
  catch (error) { if (!(error instanceof Refused)) throw error; tell(error.message); }
});
boot();
