// The organiser's page: numbers, flags and four plots, refreshed every ten seconds.
import { get, post } from "./api.js";
import { toggleTheme } from "./theme.js";

const $ = (id) => document.getElementById(id);
const percent = (x) => (x === null || x === undefined ? "–" : `${Math.round(100 * x)}%`);
const number = (x, digits = 2) => (x === null || x === undefined ? "–" : x.toFixed(digits));
const SVG = "http://www.w3.org/2000/svg";

function draw(tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function bars(svg, counts) {
  const entries = Object.entries(counts), most = Math.max(1, ...entries.map(([, n]) => n));
  svg.replaceChildren(...entries.flatMap(([name, n], row) => {
    const y = 8 + row * Math.min(30, 165 / Math.max(1, entries.length)), width = 250 * n / most;
    return [draw("text", { x: 0, y: y + 13 }, name), draw("rect", { class: "ink", x: 110, y, width: Math.max(1, width), height: 16 }), draw("text", { x: 116 + width, y: y + 13 }, n)];
  }));
  svg.setAttribute("aria-label", entries.map(([name, n]) => `${name}: ${n}`).join(", ") || "nothing yet");
}

function curve(svg, minutes) {
  const last = Math.max(1, minutes.at(-1) ?? 0), n = Math.max(1, minutes.length);
  const points = minutes.map((m, i) => `${40 + 360 * m / last},${150 - 135 * (i + 1) / n}`);
  svg.replaceChildren(
    draw("line", { class: "rule", x1: 40, y1: 150, x2: 400, y2: 150 }), draw("line", { class: "rule", x1: 40, y1: 15, x2: 40, y2: 150 }),
    draw("polyline", { points: points.join(" "), fill: "none", stroke: "currentColor", "stroke-width": 2 }),
    draw("text", { x: 0, y: 20 }, n), draw("text", { x: 40, y: 168 }, "0 min"), draw("text", { x: 340, y: 168 }, `${last} min`),
  );
  svg.setAttribute("aria-label", `${minutes.length} answers in ${last} minutes`);
}

function histogram(svg, times) {
  const all = Object.values(times).flat(), edges = [0, 1, 2, 3, 5, 8, 13, 20, 30, 1e9];
  bars(svg, Object.fromEntries(edges.slice(0, -1).map((low, i) => [i === edges.length - 2 ? `over ${low} s` : `${low}–${edges[i + 1]} s`, all.filter((t) => t >= low && t < edges[i + 1]).length])));
}

function overview(told) {
  const rows = {
    "Answers": `${told.counts.done} of ${told.target}, ${told.counts.leased} being looked at`,
    "Questions ready / waiting for clips / closed": `${told.counts.open} / ${told.counts.waiting} / ${told.counts.closed}`,
    "Krippendorff's alpha": `nominal ${number(told.alpha.nominal)}, ordinal ${number(told.alpha.ordinal)} (needs questions that two people answered)`,
    "Re-scored in the background": `${told.scored} times`,
    "Log": told.problems.length ? told.problems.join("; ") : `chain valid, head ${told.head}`,
  };
  if (told.failed.length) rows["Clips that could not be made"] = told.failed.join("; ");
  $("overview").replaceChildren(...Object.entries(rows).flatMap(([name, value]) => {
    const term = document.createElement("dt"), text = document.createElement("dd");
    term.textContent = name; text.textContent = value;
    return [term, text];
  }));
}

function people(rows) {
  $("people").replaceChildren(...rows.map((p) => {
    const row = document.createElement("tr"), name = document.createElement("th");
    name.scope = "row"; name.textContent = p.name;
    const of = (pair) => (pair?.[1] ? `${pair[0]} of ${pair[1]}` : "–");
    const cells = [p.answers, p.answers ? `${number(p.median_s, 1)} s` : "–", percent(p.left_share), of(p.repeats), of(p.gold), p.no_answer ?? "–", number(p.ability), number(p.weight), (p.flags ?? []).join(", ") || "–"];
    row.append(name, ...cells.map((value) => { const cell = document.createElement("td"); cell.textContent = value; return cell; }));
    if (p.flags?.length) row.lastChild.className = "flag";
    const access = document.createElement("td");
    if (p.role === "annotator") {
      const end = document.createElement("button");
      end.type = "button"; end.textContent = "Revoke"; end.setAttribute("aria-label", `Revoke ${p.name}`);
      end.addEventListener("click", async () => { await post("/api/revoke", { name: p.name }); end.textContent = "Revoked"; });
      access.append(end);
    } else access.textContent = p.role || "–";
    row.append(access);
    return row;
  }));
}

async function refresh() {
  try {
    const told = await get("/api/quality");
    overview(told); people(told.people); curve($("timeline"), told.timeline); histogram($("times"), told.times); bars($("choices"), told.choices); bars($("strategies"), told.strategies);
    $("state").textContent = "";
  } catch (error) { $("state").textContent = error.status === 403 ? "for the organiser only" : error.message; }
}

$("theme").addEventListener("click", toggleTheme);
$("export").addEventListener("click", async () => {
  try { $("state").textContent = `${(await post("/api/export", {})).added} new rows written`; } catch (error) { $("state").textContent = error.message; }
});
$("enrol").addEventListener("submit", async (event) => {
  event.preventDefault();
  try { $("link").textContent = `${location.origin}/#t=${(await post("/api/enrol", { name: $("name").value })).token} (shown once)`; refresh(); }
  catch (error) { $("link").textContent = error.message; }
});
await refresh();
setInterval(refresh, 10000);
