// Which questions come next: a few are fetched ahead with their clips loading, and their leases are kept alive.
import { beacon, post } from "./api.js";
import { Player } from "./player.js";

const RENEW = 40000, ACTIVE = 300000;

function tabId() { // a reload is the same tab; a duplicated tab is another one
  const reloaded = performance.getEntriesByType("navigation")[0]?.type === "reload";
  const id = (reloaded && sessionStorage.getItem("tab")) || crypto.getRandomValues(new Uint32Array(3)).join("-");
  sessionStorage.setItem("tab", id);
  return id;
}

export class Feed {
  // names(mode, n): what clips are called; onChange after every change; onLost(question) when a lease is gone.
  constructor(stage, config, names, onChange, onLost) {
    Object.assign(this, { stage, config, names, onChange, onLost, tab: tabId(), pending: new Set(), ready: [], current: undefined, asking: false, progress: {}, seen: performance.now() });
    for (const name of ["keydown", "pointerdown"]) document.addEventListener(name, () => { this.seen = performance.now(); }, { passive: true });
    setInterval(() => this.renew(), RENEW);
    window.addEventListener("pagehide", () => { const held = this.held(); if (held.length) beacon("/api/release", { held }); });
  }

  held() { return [...this.ready, ...(this.current ? [this.current] : [])].map((question) => question.name); }

  make(assignment) {
    const player = new Player(assignment.clips, this.names(assignment.mode, assignment.clips.length), (p) => this.onTick?.(p));
    this.stage.append(player.element);
    return { ...assignment, player };
  }

  async fill() {
    if (this.asking) return;
    this.asking = true;
    try {
      const short = (this.progress.ready ?? 99) < 8; // what is fetched ahead cannot be given to others
      const want = (short ? Math.min(1, this.config.prefetch) : this.config.prefetch) + 1 - this.held().length;
      if (want > 0 && !this.stopped) {
        // An answer that is still on its way holds its question, or it would be given out again.
        const held = [...this.held(), ...this.pending].slice(-30);
        const { assignments, progress } = await post("/api/next", { n: want, tab: this.tab, held });
        this.progress = progress;
        for (const one of assignments) if (![...this.held(), ...held].includes(one.name)) this.ready.push(this.make(one));
        this.trouble = undefined;
        // Clips are still being made, or others hold what is left: ask again, also while a question is on the screen.
        if (assignments.length < want && (progress.waiting || !this.current)) this.later ??= setTimeout(() => { this.later = undefined; this.fill(); }, 1500);
      }
    } catch (error) {
      this.trouble = error;
      if (error.again) setTimeout(() => this.fill(), 2000);
    } finally { this.asking = false; }
    this.onChange();
  }

  // The next question becomes the current one; undefined when none is ready.
  take() { this.current = this.ready.shift(); return this.current; }

  putBack(question) { question.player.hide(); this.ready.unshift(question); }

  async renew() {
    if (performance.now() - this.seen > ACTIVE || !this.held().length) return;
    try {
      const asked = this.held();
      const { held } = await post("/api/renew", { held: asked });
      const lost = asked.filter((name) => !held.includes(name));
      for (const question of this.ready.filter((q) => lost.includes(q.name))) question.player.close();
      this.ready = this.ready.filter((q) => !lost.includes(q.name));
      if (this.current && lost.includes(this.current.name)) this.onLost(this.current);
      else if (lost.length) this.fill();
    } catch { /* offline: the outbox says so */ }
  }
}
