// Events are written to IndexedDB before they are sent, and leave it only when the server has acknowledged them.
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

const done = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

export class Outbox {
  // onChange({waiting, refused, trouble}) after every change; onReceipt(receipt, event) for every acknowledgement.
  constructor(name, person, onChange, onReceipt) {
    Object.assign(this, { name, person, onChange, onReceipt, waiting: 0, refused: 0, trouble: "", sending: false, wait: 0 });
    this.memory = []; // only where the browser gives no IndexedDB
  }

  async start() {
    try { this.db = await open(this.name); } catch { this.trouble = "this browser keeps nothing: do not close the page while answers wait"; }
    await this.count();
    this.send();
  }

  store(name, mode = "readonly") { return this.db.transaction(name, mode, { durability: "strict" }).objectStore(name); }

  async add(event) {
    this.waiting += 1;
    this.tell();
    const entry = { person: this.person, event };
    if (this.db) {
      const store = this.store("waiting", "readwrite");
      store.add(entry);
      await new Promise((resolve, reject) => { store.transaction.oncomplete = resolve; store.transaction.onerror = () => reject(store.transaction.error); });
    } else this.memory.push({ ...entry, key: this.memory.length });
    this.send();
  }

  async entries() {
    const all = this.db ? await done(this.store("waiting").getAll()) : this.memory;
    return all.filter((entry) => entry.person === this.person); // another person's answers wait for that person
  }

  async count() {
    this.waiting = (await this.entries()).length;
    this.refused = this.db ? await done(this.store("refused").count()) : 0;
    this.tell();
  }

  tell() { this.onChange({ waiting: this.waiting, refused: this.refused, trouble: this.trouble }); }

  async send() {
    if (this.sending) return;
    this.sending = true;
    try {
      for (let batch; (batch = (await this.entries()).slice(0, 20)).length;) {
        const { receipts, progress } = await post("/api/events", { events: batch.map((entry) => entry.event) });
        this.trouble = ""; this.wait = 0;
        for (const [n, entry] of batch.entries()) await this.settle(entry, receipts[n]);
        await this.count();
        for (const [n, entry] of batch.entries()) this.onReceipt(receipts[n], entry.event, progress);
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
    if (this.db) await done(this.store("waiting", "readwrite").delete(entry.key));
    else this.memory = this.memory.filter((other) => other !== entry);
  }
}
