// Events are on the disk (IndexedDB) before they are counted as kept or sent, and leave it only when the server has acknowledged them.
import { post } from "./api.js";

const open = (name) => new Promise((resolve, reject) => {
  const asked = indexedDB.open(name, 1);
  asked.onupgradeneeded = () => {
    asked.result.createObjectStore("waiting", { keyPath: "key", autoIncrement: true });
    asked.result.createObjectStore("refused", { keyPath: "key" });
  };
  asked.onsuccess = () => resolve(asked.result);
  asked.onerror = () => reject(asked.error);
});

const BATCH = 20, BYTES = 40000; // of one request: the server takes 50 events, and 64 kB
const bytes = (entry) => new Blob([JSON.stringify(entry.event)]).size;

// The first entries that fit into one request, always at least one.
function fitting(entries) {
  let size = 0;
  return entries.slice(0, BATCH).filter((entry, n) => (size += bytes(entry)) <= BYTES || n === 0);
}

const KEEPS_NOTHING = "this browser keeps nothing: do not close the page while answers wait";

const done = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

const committed = (transaction) => new Promise((resolve, reject) => { // a full disk aborts without an error event
  transaction.oncomplete = resolve;
  transaction.onerror = transaction.onabort = () => reject(transaction.error ?? new DOMException("aborted", "AbortError"));
});

export class Outbox {
  // onChange({writing, waiting, refused, trouble}) after every change; onReceipt(receipt, event) for every acknowledgement.
  // writing: not on the disk yet, lost with the browser; waiting: on the disk, not acknowledged.
  constructor(name, person, onChange, onReceipt) {
    Object.assign(this, { name, person, onChange, onReceipt, writing: 0, waiting: 0, refused: 0, counts: 0, counted: 0, trouble: "", sending: false, wait: 0 });
    this.memory = []; // only where the browser gives no IndexedDB, or no room in it
  }

  async start() {
    try { this.db = await open(this.name); } catch { this.trouble = KEEPS_NOTHING; }
    await this.count();
    if (window.BroadcastChannel) {
      this.tabs = new BroadcastChannel(this.name);
      this.tabs.onmessage = ({ data }) => { if (data.person === this.person) { this.onReceipt(data.receipt, data.event); this.count(); } };
    }
    this.send();
  }

  store(name, mode = "readonly") { return this.db.transaction(name, mode, { durability: "strict" }).objectStore(name); }

  // Resolves when the event would survive a killed browser: only then may the page say that it was taken.
  async add(event) {
    this.writing += 1;
    this.tell();
    await this.keep({ person: this.person, event });
    this.writing -= 1;
    await this.count();
    this.send();
  }

  async keep(entry) {
    try {
      if (!this.db) throw new DOMException("no database", "InvalidStateError");
      const store = this.store("waiting", "readwrite");
      store.add(entry);
      await committed(store.transaction);
    } catch (error) {
      if (!(error instanceof DOMException)) throw error;
      this.trouble = KEEPS_NOTHING;
      this.memory.push({ ...entry, key: entry.event.uid });
    }
  }

  async entries() {
    const kept = this.db ? await done(this.store("waiting").getAll()) : [];
    return [...kept, ...this.memory].filter((entry) => entry.person === this.person); // another person's answers wait for that person
  }

  async count() {
    const turn = (this.counts += 1);
    const waiting = (await this.entries()).length, refused = this.db ? await done(this.store("refused").count()) : 0;
    if (turn < this.counted) return; // a later look was faster
    Object.assign(this, { waiting, refused, counted: turn });
    this.tell();
  }

  tell() { this.onChange({ writing: this.writing, waiting: this.waiting, refused: this.refused, trouble: this.trouble }); }

  async send() {
    if (this.sending) return;
    this.sending = true;
    try {
      for (let batch; (batch = fitting(await this.entries())).length;) {
        const { receipts, progress } = await post("/api/events", { events: batch.map((entry) => entry.event) });
        this.trouble = ""; this.wait = 0;
        for (const [n, entry] of batch.entries()) await this.settle(entry, receipts[n]);
        await this.count();
        for (const [n, entry] of batch.entries()) {
          this.onReceipt(receipts[n], entry.event, progress);
          this.tabs?.postMessage({ person: this.person, receipt: receipts[n], event: entry.event }); // it may be another tab's event
        }
      }
    } catch (error) {
      this.trouble = error.message;
      if (error.status === 401) this.trouble = "you are signed out: open your link again";
      this.wait = Math.min(10000, 2 * this.wait + 500);
      setTimeout(() => this.send(), this.wait);
      this.tell();
    } finally { this.sending = false; }
    if (!this.wait && (await this.entries()).length) this.send(); // something came in after the last look
  }

  async settle(entry, receipt) {
    if (receipt.status === "rejected" && this.db) await done(this.store("refused", "readwrite").put({ ...entry, why: receipt.reason }));
    if (this.memory.includes(entry)) this.memory = this.memory.filter((other) => other !== entry);
    else await done(this.store("waiting", "readwrite").delete(entry.key));
  }
}
