// The clips of one question on one clock. Corrects rarely and hard: all clips are paused, sought and started together.
const FREEZE = 250, PATIENCE = 250, REST = 1000, READY = 10000; // milliseconds
const AGAIN = 1500; // milliseconds until a clip that could not be fetched is asked for again
const FAR = 2; // frames apart that are corrected without patience
const CRAWL = 0.0625, HOLD = 1000; // speed of a clip that waits for another to begin, and how many milliseconds that may take

function playable(files) {
  const probe = document.createElement("video");
  const codecs = { "video/mp4": 'video/mp4; codecs="avc1.42E01F"', "video/webm": 'video/webm; codecs="vp9"' };
  return files.find((file) => probe.canPlayType(codecs[file.type])) ?? files[0];
}

export class Player {
  // clips: [{views: [{camera, files}], frames, fps, stride, first}]; names: what each clip is called.
  constructor(clips, names, onTick) {
    Object.assign(this, { clips, onTick, rate: 1, loop: true, playing: false, loops: 0, resyncs: 0, failed: false, shown: false, turn: 0, corrected: 0, held: [] });
    this.fps = clips[0].fps;
    this.frames = Math.max(...clips.map((clip) => clip.frames));
    this.element = document.createElement("div");
    this.element.className = `clips prefetched${clips.length > 2 ? " many" : ""}`;
    this.tracks = []; // {video, frames, clip}
    this.figures = clips.map((clip, n) => this.figure(clip, names[n], n));
    this.element.append(...this.figures);
    this.ready = this.whenReady();
  }

  figure(clip, name, n) {
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption"), title = document.createElement("span"), end = document.createElement("span");
    title.textContent = name; end.className = "end"; caption.append(title, end);
    const views = document.createElement("div");
    views.className = "views";
    for (const view of clip.views) {
      const video = document.createElement("video");
      Object.assign(video, { muted: true, playsInline: true, preload: "auto", disablePictureInPicture: true });
      video.setAttribute("aria-label", clip.views.length > 1 ? `${name}, camera ${view.camera}` : name);
      video.src = `/media/${playable(view.files).id}`;
      video.addEventListener("error", () => this.retry(video));
      views.append(video);
      this.tracks.push({ video, frames: clip.frames, clip: n, end });
    }
    figure.append(caption, views);
    return figure;
  }

  // A server that is away for a while, or has yet to make the clip, is no fault of the clip.
  async retry(video) {
    const source = video.src;
    let status = 0;
    try { status = (await fetch(source, { method: "HEAD", credentials: "same-origin" })).status; } catch { /* nobody is there */ }
    if (!video.isConnected || video.src !== source) return; // closed meanwhile
    if (status === 0 || status === 429 || status >= 500) { setTimeout(() => { if (video.isConnected && video.src === source) video.load(); }, AGAIN); return; }
    if (!video.dataset.retried) { video.dataset.retried = "yes"; video.load(); return; }
    this.failed = true;
    const told = document.createElement("p");
    told.className = "failed"; told.textContent = "This clip cannot be played.";
    video.replaceWith(told);
    this.element.dispatchEvent(new Event("failed"));
  }

  whenReady() { // a listener that comes late misses the event: look first
    const one = (video) => new Promise((resolve) => {
      if (video.readyState >= 3) resolve();
      for (const name of ["canplay", "canplaythrough"]) video.addEventListener(name, resolve, { once: true });
      this.element.addEventListener("failed", resolve, { once: true });
      setTimeout(resolve, READY);
    });
    return Promise.all(this.tracks.map(({ video }) => one(video)));
  }

  // Make visible and start; resolves with the time when every clip had painted its first frame.
  show(paused) {
    this.element.classList.remove("prefetched");
    this.shown = true;
    const painted = Promise.all(this.tracks.map(({ video }) => new Promise((resolve) => {
      if (this.failed) { resolve(performance.now()); return; }
      if (video.requestVideoFrameCallback && !paused) video.requestVideoFrameCallback((now) => resolve(now));
      else requestAnimationFrame(() => requestAnimationFrame(resolve));
    }))).then((times) => Math.max(...times));
    if (paused) this.seek(0); else this.begin();
    this.watch();
    return painted;
  }

  // Together from the first frame: a clip that still loads would start behind the others.
  begin() {
    if (this.tracks.every(({ video }) => video.readyState >= 3)) { this.start(0, true); return; }
    const turn = this.turn += 1;
    this.ready.then(() => { if (this.shown && turn === this.turn) this.start(0, true); });
  }

  hide() { this.shown = false; this.pause(); this.element.classList.add("prefetched"); }

  close() {
    this.shown = false;
    for (const { video } of this.tracks) { video.pause(); video.removeAttribute("src"); video.load(); }
    this.element.remove();
  }

  get longest() { return this.tracks.reduce((a, b) => (b.frames > a.frames ? b : a)); }

  get frame() { return Math.min(this.frames - 1, Math.floor(this.longest.video.currentTime * this.fps + 1e-6)); }

  start(frame, fresh = false) {
    this.playing = true; this.late = 0; this.frozen = 0; this.turn += 1;
    this.held = []; this.since = performance.now();
    for (const { video, frames } of this.tracks) {
      video.playbackRate = this.rate;
      if (fresh && video.currentTime !== 0) video.currentTime = 0;
      // play() on a clip that has ended would begin it anew
      if (fresh || frame < frames - 1) { this.held.push({ video, from: video.currentTime }); video.play()?.catch?.(() => {}); }
    }
  }

  // On a machine that is short of time one play() takes effect long after another: who is a frame ahead of a clip that has not begun crawls.
  // Not before: a browser needs some pictures to get used to another speed, and paints wrong ones meanwhile.
  release(now) {
    const late = this.held.some(({ video, from }) => !video.ended && video.currentTime <= from);
    if (!late || now - this.since >= HOLD) { this.held = []; this.setRate(this.rate); return; }
    for (const { video, from } of this.held) if ((video.currentTime - from) * this.fps >= 1) video.playbackRate = CRAWL;
  }

  async play() {
    if (this.frame >= this.frames - 1) await this.seek(0);
    this.start(this.frame);
  }

  pause() { this.playing = false; this.frozen = 0; this.turn += 1; for (const { video } of this.tracks) video.pause(); }

  setRate(rate) { this.rate = rate; if (!this.held.length) for (const { video } of this.tracks) video.playbackRate = rate; }

  // Joint seek to the middle of a frame (its very beginning may paint the one before). Latest wins.
  async seek(frame) {
    this.turn += 1;
    this.wanted = Math.max(0, Math.min(this.frames - 1, Math.round(frame)));
    if (this.seeking) return this.seeking;
    this.seeking = (async () => {
      for (let target; (target = this.wanted) !== undefined;) {
        this.wanted = undefined;
        await Promise.all(this.tracks.map(({ video, frames }) => new Promise((resolve) => {
          video.pause();
          if (this.failed || video.readyState < 1) { resolve(); return; }
          video.addEventListener("seeked", resolve, { once: true });
          setTimeout(resolve, 2000);
          video.currentTime = (Math.min(target, frames - 1) + 0.5) / this.fps;
        })));
      }
      this.seeking = undefined;
      this.onTick(this);
    })();
    return this.seeking;
  }

  async step(by) { const from = this.wanted ?? this.frame; this.pause(); await this.seek(from + by); }

  watch() {
    const tick = (now) => {
      if (!this.shown) return;
      if (this.playing && !this.seeking && !document.hidden) this.correct(now);
      for (const { video, frames, end } of this.tracks) end.textContent = video.ended || video.currentTime * this.fps >= frames - 0.51 ? "■ end" : "";
      this.onTick(this);
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  correct(now) {
    if (this.held.length) { this.release(now); return; }
    const master = this.longest.video;
    if (master.ended) {
      this.frozen ||= now;
      if (now - this.frozen >= FREEZE) this.again();
      return;
    }
    const apart = Math.max(0, ...this.tracks.filter(({ video, frames }) => !video.ended && video !== master && master.currentTime * this.fps < frames - 1)
      .map(({ video }) => Math.abs(video.currentTime - master.currentTime) * this.fps));
    this.late = apart > 1 ? this.late || now : 0;
    // A machine that is short of time gets no second seek on top of the first.
    if (this.late && now - this.late >= (apart > FAR ? 0 : PATIENCE) && now - this.corrected > REST) {
      this.corrected = now;
      this.resyncs += 1;
      const frame = this.frame;
      this.seek(frame).then(() => { if (this.playing) this.start(frame); });
    }
  }

  again() {
    this.loops += 1;
    this.frozen = 0;
    if (!this.loop) { this.pause(); return; }
    this.seek(0).then(() => { if (this.playing && this.shown) this.start(0); });
  }
}
