// What the gateway says, and what follows from two looks at it: rates. Nothing here touches the document.

/** How many looks are remembered. */
export const KEPT = 150;

export class ApiError extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

async function answer(response) {
  const text = await response.text();
  if (response.ok) return text.split("\n").filter(Boolean).map((line) => JSON.parse(line));
  let message = text.trim();
  try { message = JSON.parse(text).error.message; } catch { /* It is plain text. */ }
  throw new ApiError(response.status, message || `status ${response.status}`);
}

/** Reads the rows of a table. */
export async function rows(path, patience = 12000) {
  return answer(await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(patience) }));
}

/** Changes the state of a server; returns it before and after. */
export async function setState(pool, server, body, token) {
  const path = `/api/servers/${encodeURIComponent(pool)}/${encodeURIComponent(server)}`;
  const headers = { "Content-Type": "application/json", Authorization: `Bearer ${token}` };
  return answer(await fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal: AbortSignal.timeout(15000) }));
}

const sum = (list) => list.reduce((total, one) => total + one.count, 0);

/** Figures over time: the last values of a number, or of its rate. */
class Series {
  constructor() { this.values = []; }
  add(value) {
    this.values.push(value);
    if (this.values.length > KEPT) this.values.shift();
  }
  get last() { return this.values.at(-1) ?? null; }
}

export class History {
  constructor() { this.series = new Map(); this.before = null; this.times = new Series(); }

  of(name) {
    if (!this.series.has(name)) this.series.set(name, new Series());
    return this.series.get(name);
  }

  /** The rate of a counter, per second. A counter that went back belongs to another process. */
  rate(name, now, before, seconds) {
    this.of(name).add(before === undefined || now < before ? null : (now - before) / seconds);
  }

  /** Takes a look at everything. */
  take({ status, counters, services, servers }) {
    const look = { at: status.uptime_ms, pid: status.pid, counters, services: new Map(), servers: new Map() };
    services.forEach((row) => look.services.set(row.service, row));
    servers.forEach((row) => look.servers.set(`${row.pool}/${row.server}`, row));
    const before = this.before;
    if (before && before.pid === look.pid && look.at <= before.at) return;
    const old = before && before.pid === look.pid ? before : null;
    const seconds = old ? (look.at - old.at) / 1000 : 1;
    const { engine, device } = counters;
    const past = old?.counters;
    this.times.add(Date.now());
    this.rate("packets", engine.packets_in, past?.engine.packets_in, seconds);
    this.rate("forwarded", engine.translated + engine.foreign, past && past.engine.translated + past.engine.foreign, seconds);
    this.rate("consumed", sum(engine.consumed), past && sum(past.engine.consumed), seconds);
    this.rate("dropped", sum(engine.dropped), past && sum(past.engine.dropped), seconds);
    this.rate("lost", device.lost + device.write_failures, past && past.device.lost + past.device.write_failures, seconds);
    this.rate("bits", 8 * engine.bytes_in, past && 8 * past.engine.bytes_in, seconds);
    this.rate("opened", engine.flows_opened, past?.engine.flows_opened, seconds);
    this.of("flows").add(engine.flows);
    engine.dropped.forEach((one, place) => {
      this.rate(`drop ${one.kind}`, one.count, past?.engine.dropped[place]?.count, seconds);
    });
    for (const [name, row] of look.services) {
      this.rate(`service ${name}`, row.flows_total, old?.services.get(name)?.flows_total, seconds);
    }
    for (const [name, row] of look.servers) {
      const then = old?.servers.get(name);
      this.rate(`in ${name}`, 8 * row.bytes_in, then && 8 * then.bytes_in, seconds);
      this.rate(`out ${name}`, 8 * row.bytes_out, then && 8 * then.bytes_out, seconds);
      this.rate(`traffic ${name}`, 8 * (row.bytes_in + row.bytes_out), then && 8 * (then.bytes_in + then.bytes_out), seconds);
    }
    this.forget(look);
    this.before = look;
  }

  /** Forgets services and servers that are gone. */
  forget(look) {
    for (const name of this.series.keys()) {
      const [kind, rest] = [name.slice(0, name.indexOf(" ")), name.slice(name.indexOf(" ") + 1)];
      if (kind === "service" && !look.services.has(rest)) this.series.delete(name);
      if (["in", "out", "traffic"].includes(kind) && !look.servers.has(rest)) this.series.delete(name);
    }
  }
}

const plain = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** A number, exact while it is short. */
export function number(value) {
  if (value === null || value === undefined) return "–";
  if (Math.abs(value) >= 100000) return short.format(value);
  return plain.format(Math.abs(value) >= 10 || Number.isInteger(value) ? Math.round(value) : Math.round(value * 10) / 10);
}

export const exact = (value) => plain.format(value);

/** Bits per second. */
export function bits(value) {
  if (value === null || value === undefined) return "–";
  const units = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"];
  let place = 0;
  while (value >= 1000 && place < units.length - 1) { value /= 1000; place += 1; }
  return `${value >= 100 || place === 0 ? Math.round(value) : Math.round(value * 10) / 10} ${units[place]}`;
}

/** A time span, in two units at most. */
export function span(ms) {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([size]) => seconds >= size);
  const [size, unit] = parts[first];
  const next = parts[first + 1];
  const rest = next ? Math.floor((seconds % size) / next[0]) : 0;
  return rest && first < 2 ? `${Math.floor(seconds / size)} ${unit} ${rest} ${next[1]}` : `${Math.floor(seconds / size)} ${unit}`;
}
