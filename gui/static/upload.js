// Files go up in pieces: pause, a broken connection or a closed page lose at most one piece each. Choosing the same files goes on.

const form = document.querySelector("[data-upload]");
const drop = form.querySelector("[data-drop]");
const part = (name) => form.querySelector(`[data-${name}]`);
const CHUNK = Number(form.dataset.chunk);
const AT_ONCE = 3;
const LONGEST_REST = 30_000;
const BUSY = 429; // asked too often: what was refused is asked for again, later
let chosen = []; // [{file, name}]
let run = null;

/** One upload under way: what the server holds of each file, and what is on its way. */
class Run {
  constructor(entries) {
    this.entries = entries;
    this.total = entries.reduce((sum, { file }) => sum + file.size, 0);
    this.received = entries.map(() => 0);
    this.arrived = 0; // their sum
    this.key = `upload ${entries.map(({ file, name }) => `${name}:${file.size}:${file.lastModified}`).join("|").slice(0, 4000)} ${this.total}`;
    this.flying = new Map(); // index → bytes of the piece under way that have left
    this.seen = []; // [moment, bytes]: the last seconds, to tell the speed from
    this.requests = new Set();
    this.paused = false;
    this.gone = false;
  }

  get bytes() {
    const flying = [...this.flying.values()].reduce((sum, count) => sum + count, 0);
    return Math.min(this.total, this.arrived + flying);
  }

  take(index, received) {
    this.arrived += received - this.received[index];
    this.received[index] = received;
  }

  get address() {
    return `${form.dataset.upload}/${encodeURIComponent(this.id)}`;
  }

  /** The upload on the server: the one that was begun with the same files, or a new one. */
  async begin() {
    this.id = localStorage.getItem(this.key);
    if (this.id && (await this.ask())) return;
    const files = this.entries.map(({ file, name }) => ({ name, size: file.size }));
    const answer = await json(form.dataset.upload, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ files }) });
    this.id = answer.id;
    remember(this.key, this.id);
  }

  /** What the server has received; false where it no longer knows the upload. */
  async ask() {
    const answer = await fetch(this.address);
    if (answer.status === 404) return false;
    if (!answer.ok) throw new Refusal(await words(answer), answer.status);
    const { files } = await answer.json();
    if (files.length !== this.entries.length) return false;
    files.forEach((file, index) => this.take(index, file.received));
    return true;
  }

  async send() {
    await this.keepTrying(() => this.begin());
    const waiting = this.entries.map((_, index) => index);
    const worker = async () => {
      while (waiting.length && !this.gone) await this.sendFile(waiting.shift());
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
  }

  async sendFile(index) {
    const { file } = this.entries[index];
    while (this.received[index] < file.size && !this.gone) {
      await this.keepTrying(() => this.sendPiece(index, file));
    }
  }

  async sendPiece(index, file) {
    const offset = this.received[index];
    try {
      const address = `${this.address}/files/${index}?offset=${offset}`;
      const answer = await this.put(address, file.slice(offset, offset + CHUNK), (sent) => {
        this.flying.set(index, sent);
        figures();
      });
      this.take(index, answer.received);
    } finally {
      this.flying.delete(index);
      figures();
    }
  }

  /** XMLHttpRequest because it tells how much has left. Resolves to the answer; 409 carries the offset that is right. */
  put(address, body, progress) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      const end = () => this.requests.delete(request);
      request.open("PUT", address);
      request.setRequestHeader("content-type", "application/octet-stream");
      request.upload.onprogress = (event) => progress(event.loaded);
      request.onload = () => {
        end();
        const answer = read(request.responseText);
        if (request.status < 300 || (request.status === 409 && Number.isInteger(answer.received))) resolve(answer);
        else reject(new Refusal(answer.cause ? `${answer.cause} ${answer.cure ?? ""}` : `The server answered ${request.status}.`, request.status));
      };
      request.onerror = request.onabort = () => (end(), reject(new Error("the connection broke")));
      this.requests.add(request);
      request.send(body);
    });
  }

  /** Does it until it succeeds; after what breaks it rests, longer each time, and then asks what has arrived. */
  async keepTrying(what) {
    for (let rest = 1000; !this.gone; rest = Math.min(rest * 2, LONGEST_REST)) {
      await this.resumed();
      if (this.gone) return;
      try {
        const answer = await what();
        trouble("");
        return answer;
      } catch (error) {
        if (error instanceof Refusal && error.status < 500 && error.status !== BUSY) throw error;
        if (this.paused || this.gone) continue;
        trouble(`The connection is lost. Trying again in ${Math.round(rest / 1000)} s; what has arrived is kept.`);
        await sleep(rest);
        await this.look();
      }
    }
  }

  async look() {
    if (!this.id || this.gone) return;
    try {
      if (!(await this.ask())) throw new Refusal("The server no longer knows this upload.", 404);
    } catch (error) {
      if (error instanceof Refusal && error.status < 500) throw error;
    }
  }

  pause() {
    this.paused = true;
    for (const request of this.requests) request.abort();
  }

  resume() {
    this.paused = false;
    this.seen = [];
    this.wake?.();
  }

  async resumed() {
    while (this.paused && !this.gone) await new Promise((wake) => (this.wake = wake));
  }

  /** Ends it for good; the server forgets what it holds. */
  forget() {
    this.gone = true;
    this.pause();
    this.wake?.();
    localStorage.removeItem(this.key);
    if (this.id) fetch(this.address, { method: "DELETE" }).catch(() => undefined);
  }
}

class Refusal extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

const sleep = (milliseconds) => new Promise((wake) => setTimeout(wake, milliseconds));

function read(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

async function words(answer) {
  const { cause, cure } = read(await answer.text());
  return cause ? `${cause} ${cure ?? ""}` : `The server answered ${answer.status}.`;
}

async function json(address, init) {
  const answer = await fetch(address, init);
  if (!answer.ok) throw new Refusal(await words(answer), answer.status);
  return answer.json();
}

/** Uploads that were begun, the latest few: a browser's store is small. */
function remember(key, id) {
  const old = Object.keys(localStorage).filter((name) => name.startsWith("upload "));
  for (const name of old.slice(0, Math.max(0, old.length - 4))) localStorage.removeItem(name);
  localStorage.setItem(key, id);
}

function size(bytes) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let value = bytes;
  while (value >= 1000 && units.length > 1) {
    value /= 1000;
    units.shift();
  }
  return `${value.toFixed(["GB", "TB"].includes(units[0]) && value < 10 ? 1 : 0)}\u00a0${units[0]}`;
}

function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))}\u00a0s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes}\u00a0min` : `${Math.floor(minutes / 60)}\u00a0h ${minutes % 60}\u00a0min`;
}

function trouble(text) {
  part("trouble").textContent = text;
  part("trouble").hidden = !text;
}

let queued = false;

/** Drawn with the next picture of the screen: thousands of small files change the figures more often than anybody sees. */
function figures() {
  if (!queued) requestAnimationFrame(draw);
  queued = true;
}

function draw() {
  queued = false;
  if (!run) return;
  const bytes = run.bytes;
  const bar = form.querySelector("[role=progressbar]");
  const share = run.total ? (bytes / run.total) * 100 : 100;
  bar.setAttribute("aria-valuenow", Math.round(share));
  bar.firstElementChild.style.width = `${share.toFixed(1)}%`;
  const now = performance.now();
  run.seen.push([now, bytes]);
  while (run.seen.length > 2 && now - run.seen[0][0] > 8000) run.seen.shift();
  const [since, before] = run.seen[0];
  const speed = now - since > 500 ? Math.max(0, (bytes - before) / ((now - since) / 1000)) : 0;
  const left = speed > 0 ? `, ${size(speed)}/s, ${duration((run.total - bytes) / speed)} left` : "";
  part("figures").textContent = `${size(bytes)} of ${size(run.total)}${run.paused ? ", paused" : bytes < run.total ? left : ""}`;
}

/** A name as the server would propose it. */
function propose(name) {
  const stem = name.replace(/\.(zip|tgz|txz|tbz2|tar(\.(gz|bz2|xz))?)$/i, "").replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[-._]+|[-._]+$/g, "").slice(0, 56) || "pictures";
  const taken = ["new", ...JSON.parse(form.dataset.taken)];
  for (let number = 1; ; number += 1) {
    const free = number === 1 ? stem : `${stem}-${number}`;
    if (!taken.includes(free)) return free;
  }
}

function choose(entries) {
  chosen = entries.filter(({ name }) => !/(^|\/)(\.DS_Store|Thumbs\.db|__MACOSX)/.test(name));
  if (!chosen.length) return;
  const [{ name }] = chosen;
  const top = name.includes("/") ? name.split("/")[0] : name;
  part("chosen").textContent = chosen.length === 1 ? name : name.includes("/") ? `${top}/` : `${chosen.length} files`;
  const total = chosen.reduce((sum, { file }) => sum + file.size, 0);
  part("amount").textContent = chosen.length === 1 ? size(total) : `${chosen.length.toLocaleString("en").replaceAll(",", "\u202f")} files, ${size(total)}`;
  const field = form.elements.name;
  if (!field.value || field.dataset.proposed === field.value) field.dataset.proposed = field.value = propose(name.includes("/") || chosen.length === 1 ? top : "pictures");
  form.elements.folder.value = "";
  showSending(true);
}

function showSending(on) {
  drop.hidden = on;
  part("machine").hidden = on;
  part("sending").hidden = !on;
}

const asChosen = (files) => [...files].map((file) => ({ file, name: file.webkitRelativePath || file.name }));

/** Everything that was dropped, folders walked through. */
async function dropped(transfer) {
  const roots = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!roots.length) return asChosen(transfer.files);
  const found = [];
  const walk = async (entry, path) => {
    if (entry.isFile) found.push({ file: await new Promise((take, fail) => entry.file(take, fail)), name: path + entry.name });
    else for (const child of await children(entry)) await walk(child, `${path}${entry.name}/`);
  };
  for (const root of roots) await walk(root, "");
  return found;
}

async function children(folder) {
  const reader = folder.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((take, fail) => reader.readEntries(take, fail)); // a hundred at most each time
    if (!some.length) return found;
    found.push(...some);
  }
}

async function go() {
  const own = (run = new Run(chosen)); // Cancel may put another in its place while this one still ends
  part("go").disabled = true;
  part("pause").hidden = false;
  part("clear").textContent = "Cancel";
  figures();
  try {
    await own.send();
    if (own.gone) return;
    localStorage.removeItem(own.key);
    form.elements.upload.value = own.id;
    for (const field of form.querySelectorAll("input[type=file]")) field.disabled = true;
    part("pause").hidden = true;
    form.submit();
  } catch (error) {
    if (own.gone) return;
    own.gone = true;
    reset();
    trouble(error.message);
  }
}

function reset() {
  part("go").disabled = false;
  part("pause").hidden = true;
  part("pause").textContent = "Pause";
  part("clear").textContent = "Choose others";
}

if (drop) {
  part("drop-hint").hidden = false;
  for (const field of form.querySelectorAll("input[type=file]")) {
    field.addEventListener("change", () => choose(asChosen(field.files)));
    if (field.files.length) choose(asChosen(field.files)); // chosen before this script was there
  }
  form.addEventListener("submit", (event) => {
    if (!chosen.length) return; // a folder on the machine: a plain form
    event.preventDefault();
    if (!part("go").disabled) go();
  });
  part("pause").addEventListener("click", () => {
    if (run.paused) run.resume();
    else run.pause();
    part("pause").textContent = run.paused ? "Go on" : "Pause";
    if (run.paused) trouble("");
    figures();
  });
  part("clear").addEventListener("click", () => {
    run?.forget();
    run = null;
    chosen = [];
    for (const field of form.querySelectorAll("input[type=file]")) field.value = "";
    part("figures").textContent = "";
    form.querySelector("[role=progressbar] span").style.width = "0%";
    trouble("");
    reset();
    showSending(false);
  });
  addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  addEventListener("dragleave", (event) => event.relatedTarget || drop.classList.remove("over"));
  addEventListener("drop", async (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (!run) choose(await dropped(event.dataTransfer));
  });
  addEventListener("pageshow", (event) => event.persisted && location.reload()); // Back after sending: a fresh form
  addEventListener("beforeunload", (event) => run && !run.gone && !form.elements.upload.value && event.preventDefault());
}
