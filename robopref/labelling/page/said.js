// What a person says about the current question besides the answer itself. Made anew for every question: nothing leaks.
const MOST = 64, full = `an answer holds ${MOST} marks of a kind`; // as the server does

export class Said {
  constructor(count) { Object.assign(this, { count, strength: 0, reasons: new Set(), spans: [], keypoints: [], order: [], ties: new Set(), side: 0, open: undefined, shownAt: performance.now(), firstAt: undefined, away: 0 }); }

  toggleStrength(n) { this.strength = this.strength === n ? 0 : n; }
  toggleReason(name) { if (!this.reasons.delete(name)) this.reasons.add(name); }
  startSpan(step) { this.open = [this.side, step]; }

  endSpan(step) {
    if (!this.open || this.open[0] !== this.side) return "mark the start of the span first";
    const [from, to] = [Math.min(this.open[1], step), Math.max(this.open[1], step) + 1];
    this.open = undefined;
    if (this.spans.length === MOST) return full;
    this.spans.push([this.side, from, to]);
    return "";
  }

  addKeypoint(step) {
    if (this.keypoints.some(([side, at]) => side === this.side && at === step)) return "";
    if (this.keypoints.length === MOST) return full;
    this.keypoints.push([this.side, step]);
    return "";
  }

  // Ranking: the next clip is placed behind (or, after a tie, beside) the last one; again: taken back.
  place(position) {
    const at = this.order.indexOf(position);
    if (at >= 0) { this.order.splice(at, 1); this.ties.delete(position); return; }
    this.order.push(position);
    if (this.tieNext && this.order.length > 1) this.ties.add(position);
    this.tieNext = false;
  }

  get tiers() {
    const tiers = [];
    for (const position of this.order) if (tiers.length && this.ties.has(position)) tiers.at(-1).push(position); else tiers.push([position]);
    return tiers;
  }

  // The body of an answer as the server checks it.
  body(choice, extra, player, question, note, key) {
    const now = performance.now(), ms = (t) => Math.round(t * 10) / 10;
    const body = {
      choice, ...extra, question_id: question.question_id, key: key ?? "pointer", shown_ms: ms(this.shownAt), first_frame_ms: ms(this.firstAt ?? 0), answer_ms: ms(now),
      response_ms: ms(now - (this.firstAt ?? this.shownAt)), unfocused_ms: ms(this.away), resyncs: player.resyncs, speed: player.rate, loops: [player.loops], agent: navigator.userAgent.slice(0, 300),
    };
    if (this.strength) body.strength = this.strength;
    if (this.reasons.size) body.reasons = [...this.reasons];
    if (this.spans.length) body.spans = this.spans;
    if (this.keypoints.length) body.keypoints = this.keypoints;
    if (note) body.note = note;
    return body;
  }
}
