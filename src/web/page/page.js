// The page: looks at the gateway every few seconds, shows it, and asks before it changes anything.

import { ApiError, History, KEPT, bits, exact, number, rows, setState, span } from "./data.js";
import { el, keyed, meter, plot, prose, spark, svg, text } from "./draw.js";
import { explain } from "./explain.js";

const $ = (id) => document.getElementById(id);
const PAUSE = 2000;
/** With more servers than this the tables are read less often, and not all of them are shown at once. */
const MANY = 1000;
const PORTION = 100;

const state = {
  history: new History(), status: null, counters: null, services: [], servers: [], sources: [], events: [], changes: [], words: {},
  seen: null, looked: 0, failed: null, shown: { services: PORTION, servers: PORTION }, token: "", pause: PAUSE,
};

const nameOf = (row) => `${row.pool}/${row.server}`;

// ---- what a server is

/** The last event of a server that explains its state, if the gateway still knows it. */
function lastDown(row) {
  const own = state.events.filter((event) => event.server === row.server && event.pool === row.pool && event.what);
  return own.filter((event) => event.what === "down").sort((a, b) => a.ago_ms - b.ago_ms)[0] ?? null;
}

function condition(row) {
  if (row.removed) return { level: "warn", word: "removed", note: "gone with its last flow" };
  if (row.admin === "disabled") return { level: "", word: "disabled", note: byWhom(row) };
  if (row.admin === "draining") {
    const left = row.drain_deadline_ms ? `ends in ${span(row.drain_deadline_ms)}` : byWhom(row);
    return { level: "warn", word: row.flows ? "draining" : "drained", note: left };
  }
  if (row.health === "down") {
    const event = lastDown(row);
    return { level: "bad", word: "down", note: event ? `for ${span(event.ago_ms)}` : null, why: event?.why, since: event?.ago_ms };
  }
  if (row.health === "unknown") return { level: "warn", word: "not known yet", note: null };
  if (row.parts_down?.length) {
    const parts = row.parts_down.map((part) => `${part.family}${part.port ? ` port ${part.port}` : ""}`).join(", ");
    return { level: "warn", word: "partly down", note: parts, why: lastDown(row)?.why };
  }
  if (row.maintenance) return { level: "warn", word: "maintenance", note: null };
  if (row.passive_hold_ms) return { level: "warn", word: "held", note: `for ${span(row.passive_hold_ms)} more` };
  if (row.weight === 0) return { level: "", word: "weight 0", note: null };
  return { level: "good", word: "up", note: null };
}

function byWhom(row) {
  const change = state.changes.find((one) => one.object.kind === "server" && one.object.name === nameOf(row) && one.key === "state");
  return change ? `by uid ${change.uid}, ${span(change.ago_ms)} ago` : "by the configuration";
}

const accepts = (row) => ["good"].includes(condition(row).level) || (row.parts_down?.length && row.admin === "enabled");

// ---- what needs attention

function problems() {
  const all = [];
  const { status } = state;
  for (const row of status.troubles) all.push({ level: "bad", name: row.part, why: row.what, since: `for ${span(row.for_ms)}` });
  const pools = new Map();
  state.servers.forEach((row) => pools.set(row.pool, (pools.get(row.pool) ?? 0) + (accepts(row) ? 1 : 0)));
  for (const row of state.services) {
    if (row.enabled && row.listen.length && !pools.get(row.pool)) {
      all.push({ level: "bad", name: `Service ${row.service}`, why: `no server of pool ${row.pool} takes new flows`, since: "" });
    }
  }
  const down = state.servers.filter((row) => row.admin === "enabled" && row.health === "down" && !row.removed);
  for (const row of down.slice(0, 12)) {
    const { why, since } = condition(row);
    all.push({ level: "bad", name: `Server ${nameOf(row)} is down`, why: why ?? "it has not been up since the gateway started", since: since === undefined ? "" : `for ${span(since)}` });
  }
  if (down.length > 12) all.push({ level: "bad", name: `${exact(down.length - 12)} more servers are down`, why: "filter the servers by “down”", since: "" });
  for (const row of status.pressures) {
    const gave = row.gave_way.filter((one) => one.count).map((one) => `${exact(one.count)} ${one.kind}`).join(", ");
    all.push({ level: "warn", name: `No room: ${row.of}`, why: `${gave || "no"} flows gave way, ${exact(row.refused)} refused`, since: `for ${span(row.for_ms)}` });
  }
  for (const row of state.sources.filter((one) => one.error)) {
    all.push({ level: "warn", name: `Servers of pool ${row.pool} from ${row.from}`, why: row.error, since: row.error_for_ms ? `for ${span(row.error_for_ms)}` : "" });
  }
  const lost = state.history.of("lost").last;
  if (lost > 0) all.push({ level: "warn", name: "Packets are lost at the device", why: `${number(lost)} per second: they come faster than they are handled`, since: "" });
  return all;
}

function showAttention() {
  const all = problems();
  const items = all.length ? all : [{ level: "good", name: "Nothing needs attention", why: "", since: "" }];
  const marks = { good: "✓", bad: "✕", warn: "!" };
  keyed($("attention-list"), items, (one) => `${one.level} ${one.name}`,
    (one) => el("li", { class: one.level }, el("span", { class: "mark", "aria-hidden": "true" }, marks[one.level]),
      el("span", { class: "what" }, el("strong", {}, one.why ? `${one.name}: ` : one.name), el("span", { class: "why" })), el("span", { class: "since" })),
    (child, one) => { text(child.querySelector(".why"), one.why); text(child.querySelector(".since"), one.since); });
  document.title = all.length ? `(${all.length}) Equipoise` : "Equipoise";
}

// ---- figures

function tile(id, label, value, unit, series, level = "") {
  let made = $(id);
  if (!made) {
    made = el("div", { class: "tile", id }, el("dt", {}, label), el("dd", {}));
    made.append(svg("svg", { class: "spark" }));
    $("tiles").append(made);
  }
  made.className = `tile ${level}`;
  const dd = made.querySelector("dd");
  text(dd, value);
  if (unit) dd.append(el("small", {}, unit));
  made.lastChild.setAttribute("class", `spark ${level}`);
  spark(made.lastChild, series.values, KEPT);
}

function showTiles() {
  const { history } = state;
  const { engine } = state.counters;
  const [rate, unit] = bits(history.of("bits").last).split(" ");
  tile("t-packets", "Packets", number(history.of("packets").last), "per second", history.of("packets"));
  tile("t-bits", "Traffic, both directions", rate, unit ?? "", history.of("bits"));
  tile("t-opened", "New flows", number(history.of("opened").last), "per second", history.of("opened"));
  tile("t-flows", "Flows", number(engine.flows), `of ${number(engine.max_flows)}`, history.of("flows"));
  tile("t-dropped", "Dropped", number(history.of("dropped").last), "packets per second", history.of("dropped"));
}

function showPlots() {
  const { history } = state;
  const named = (name, series) => ({ name, values: history.of(series).values });
  const options = { format: number, pause: state.pause, most_kept: KEPT };
  plot($("packets-plot"), [named("forwarded", "forwarded"), named("dropped", "dropped"), named("consumed", "consumed")], { ...options, name: "Packets per second" });
  const drops = state.counters.engine.dropped.filter((one) => one.count > 0);
  const recent = (one) => history.of(`drop ${one.kind}`).values.reduce((total, value) => total + (value ?? 0), 0);
  const active = drops.filter((one) => recent(one) > 0).sort((a, b) => recent(b) - recent(a)).slice(0, 6);
  const series = active.map((one) => named(one.kind, `drop ${one.kind}`));
  if (series.length) plot($("drops-plot"), series, { ...options, name: "Dropped per second, by reason" });
  else $("drops-plot").replaceChildren(el("p", { class: "empty" }, "No packet was dropped in the last minutes."));
  const sorted = drops.sort((a, b) => b.count - a.count);
  if (!sorted.length) return $("drops").replaceChildren();
  const row = (one) => el("tr", {}, el("td", {}, el("span", { class: "name" }, one.kind), el("div", { class: "sub" }, state.words[one.kind] ?? "")),
    el("td", { class: "figure" }, number(history.of(`drop ${one.kind}`).last)), el("td", { class: "figure" }, number(one.count)));
  const head = el("tr", {}, el("th", { scope: "col" }, "Reason"), el("th", { scope: "col", class: "figure" }, "Per second"), el("th", { scope: "col", class: "figure" }, "Since start"));
  $("drops").replaceChildren(el("table", { class: "reasons" }, el("caption", { class: "hidden" }, "Drops by reason"), el("thead", {}, head), el("tbody", {}, sorted.slice(0, 12).map(row))));
}

function showRoom() {
  const { engine } = state.counters;
  const full = engine.flows - engine.half_open;
  const one = (name, used, most, of) => {
    const share = most ? used / most : 0;
    const pressed = state.status.pressures.some((row) => row.of === of);
    return meter(name, share, `${number(used)} of ${number(most)}`, pressed ? "flows give way or are refused" : null, pressed ? "bad" : share > 0.9 ? "warn" : "");
  };
  const queues = state.status.queues === 1 ? "1 queue" : `${state.status.queues} queues`;
  $("room").replaceChildren(
    one("Flows", full, engine.max_flows, "table"), one("Half-open flows", engine.half_open, engine.max_half_open, "half-open"),
    el("p", { class: "sub" }, `Device ${state.status.device}, MTU ${exact(state.status.mtu)} bytes, ${queues}; ${exact(state.counters.device.lost)} packets lost in them since the start`));
}

// ---- tables

function showServices() {
  const all = state.services;
  text($("services-count"), exact(all.length));
  const shown = all.slice(0, state.shown.services);
  keyed($("services").tBodies[0], shown, (row) => row.service, () => el("tr", {},
    el("td", { class: "first" }, el("span", { class: "name" }), " ", el("span", { class: "off" }), el("div", { class: "sub mono" })),
    el("td", { "data-label": "Pool" }, el("span", {}), el("div", { class: "sub" })),
    el("td", { class: "figure", "data-label": "Flows" }), el("td", { class: "figure", "data-label": "New per second" }),
    el("td", { class: "spark-cell" }, svg("svg", { class: "spark" }))),
  (tr, row) => {
    const [name, pool, flows, opened, curve] = tr.cells;
    text(name.querySelector(".name"), row.service);
    text(name.querySelector(".off"), row.enabled ? "" : "off");
    name.querySelector(".off").className = row.enabled ? "off" : "off pill";
    text(name.querySelector(".sub"), row.listen.slice(0, 3).join(" ") + (row.listen.length > 3 ? ` and ${row.listen.length - 3} more` : ""));
    text(pool.firstChild, row.pool);
    text(pool.querySelector(".sub"), row.algorithm);
    text(flows, number(row.flows));
    const series = state.history.of(`service ${row.service}`);
    text(opened, number(series.last));
    spark(curve.firstChild, series.values, KEPT);
  });
  more($("services-more"), "services", all.length);
}

/** What is wrong comes first; otherwise the order of the configuration stays. */
const weightOf = (row) => ({ bad: 0, warn: 1 })[condition(row).level] ?? 2;

function showServers() {
  const words = $("servers-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (row) => {
    const own = `${nameOf(row)} ${row.addresses.join(" ")} ${condition(row).word}`.toLowerCase();
    return words.every((word) => own.includes(word));
  };
  const all = state.servers.filter(fits).map((row, place) => [weightOf(row), place, row]).sort((a, b) => a[0] - b[0] || a[1] - b[1]).map((one) => one[2]);
  const up = state.servers.filter(accepts).length;
  text($("servers-count"), `${exact(up)} of ${exact(state.servers.length)} take new flows`);
  keyed($("servers").tBodies[0], all.slice(0, state.shown.servers), (row) => nameOf(row) + (row.removed ? " removed" : ""), () => el("tr", {},
    el("td", { class: "first" }, el("span", { class: "name" }), el("div", { class: "sub mono" })),
    el("td", { class: "state" }, el("span", { class: "pill" }), el("div", { class: "sub" })),
    el("td", { class: "figure", "data-label": "Flows" }), el("td", { class: "figure", "data-label": "Traffic" }, el("div", { class: "rate" }, el("span", {}, "in"), el("b", {}), el("span", {}, "out"), el("b", {}))),
    el("td", { class: "figure", "data-label": "Latency" }), el("td", { class: "spark-cell" }, svg("svg", { class: "spark" })),
    el("td", { class: "actions-cell" }, el("div", { class: "actions" }))), showServer);
  more($("servers-more"), "servers", all.length);
  if (!all.length) $("servers").tBodies[0].replaceChildren(el("tr", {}, el("td", { class: "empty", colspan: 7 }, words.length ? "No server fits the filter." : "There are no servers.")));
}

function showServer(tr, row) {
  const [name, what, flows, rate, latency, curve, actions] = tr.cells;
  const { level, word, note, why } = condition(row);
  text(name.querySelector(".name"), nameOf(row));
  const own = [row.addresses.join(" "), row.port ? `port ${row.port}` : null, row.weight === 1 ? null : `weight ${row.weight}`];
  text(name.querySelector(".sub"), own.filter(Boolean).join(", "));
  const pill = what.firstChild;
  const marks = { good: "✓", bad: "✕", warn: "!" };
  pill.className = `pill ${level}`;
  text(pill, `${marks[level] ? `${marks[level]} ` : ""}${word}`);
  text(what.querySelector(".sub"), [note, why].filter(Boolean).join(": "));
  text(flows, row.max_flows ? `${number(row.flows)} of ${number(row.max_flows)}` : number(row.flows));
  const key = nameOf(row);
  const { history } = state;
  const [to, from] = rate.firstChild.querySelectorAll("b");
  text(to, bits(history.of(`in ${key}`).last));
  text(from, bits(history.of(`out ${key}`).last));
  text(latency, row.latency_ms === undefined ? "–" : `${row.latency_ms < 10 ? row.latency_ms.toFixed(2) : Math.round(row.latency_ms)} ms`);
  spark(curve.firstChild, history.of(`traffic ${key}`).values, KEPT);
  curve.firstChild.setAttribute("class", level === "bad" ? "spark bad" : "spark");
  const possible = row.removed ? [] : row.admin === "enabled" ? ["draining", "disabled"] : row.admin === "draining" ? ["enabled", "disabled"] : ["enabled"];
  const verbs = { draining: "Drain", disabled: "Disable", enabled: "Enable" };
  keyed(actions.firstChild, possible, (to) => to, (to) => el("button", { type: "button", class: "small", "aria-label": `${verbs[to]} ${key}`, onclick: () => askChange(row.pool, row.server, to) }, verbs[to]), () => {});
}

function more(button, what, count) {
  const left = count - state.shown[what];
  button.hidden = left <= 0;
  text(button, `Show ${exact(Math.min(left, PORTION))} more of ${exact(count)}`);
}

function showHistory() {
  const entry = (row) => {
    const part = row.family ? `${row.family}${row.port ? ` port ${row.port}` : ""}` : "";
    if (row.server !== undefined) {
      const level = { up: "good", down: "bad" }[row.what] ?? "warn";
      return { ago: row.ago_ms, level, word: row.what, what: `${nameOf(row)} ${part}`, why: row.why };
    }
    return { ago: row.ago_ms, level: "", word: row.uid === undefined ? "gateway" : `uid ${row.uid}`, what: row.what, why: "" };
  };
  const all = state.events.map(entry).sort((a, b) => a.ago - b.ago).slice(0, 40);
  if (!all.length) return $("history").replaceChildren(el("li", { class: "empty" }, "Nothing yet."));
  $("history").replaceChildren(...all.map((one) => el("li", {}, el("time", {}, `${span(one.ago)} ago`),
    el("span", { class: "what" }, el("span", { class: `pill ${one.level}` }, one.word), ` ${one.what}`, one.why ? el("span", { class: "sub" }, ` ${one.why}`) : null))));
}

function show() {
  const { status } = state;
  text($("about"), `${status.device} · version ${status.version} · up ${span(status.uptime_ms)}`);
  showAttention(); showTiles(); showPlots(); showRoom(); showServices(); showServers();
}

// ---- changes

const pending = { pool: "", server: "", to: "" };

function askChange(pool, server, to) {
  Object.assign(pending, { pool, server, to });
  const verbs = { draining: "Drain", disabled: "Disable", enabled: "Enable" };
  const effects = {
    draining: "It keeps its flows and gets no new ones, until they have all ended.",
    disabled: "It is treated as down at once: its flows stay, or are reset, as the service says.",
    enabled: "It gets new flows again.",
  };
  $("change-title").textContent = `${verbs[to]} ${pool}/${server}?`;
  $("change-text").textContent = effects[to];
  $("change-do").textContent = verbs[to];
  $("change-do").className = to === "disabled" ? "danger" : "primary";
  $("deadline-part").hidden = to !== "draining";
  $("deadline").value = "";
  $("token-part").hidden = Boolean(state.token);
  $("token").value = "";
  $("change-error").textContent = "";
  $("change").showModal();
  (state.token ? $("change-do") : $("token")).focus();
}

async function change() {
  const token = state.token || $("token").value.trim();
  const minutes = Number($("deadline").value);
  const body = { state: pending.to };
  if (pending.to === "draining" && minutes > 0) body.deadline_ms = Math.round(minutes * 60000);
  $("change-do").disabled = true;
  try {
    const [done] = await setState(pending.pool, pending.server, body, token);
    state.token = token;
    sessionStorage.setItem("token", token);
    $("change").close();
    say(done?.text ?? "Done.");
    setTimeout(() => look(true), 1100);
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) {
      state.token = "";
      sessionStorage.removeItem("token");
      $("token-part").hidden = false;
      $("token").focus();
    }
    $("change-error").replaceChildren(...prose(error.message));
  } finally {
    $("change-do").disabled = false;
  }
}

let silence = 0;
function say(words) {
  $("said").textContent = words;
  clearTimeout(silence);
  silence = setTimeout(() => { $("said").textContent = ""; }, 8000);
}

// ---- looking

async function look(whole = false) {
  try {
    const [[status], [counters], services, servers] = await Promise.all(["status", "counters", "services", "servers"].map((table) => rows(`/api/${table}`)));
    Object.assign(state, { status, counters, services, servers });
    state.pause = servers.length > MANY ? 5 * PAUSE : PAUSE;
    const moved = `${status.pid} ${servers.reduce((total, row) => total + row.times_down + row.times_up, 0)}`;
    if (whole || moved !== state.seen || Date.now() - state.looked > 15000) {
      const [events, changes, sources] = await Promise.all(["history", "changes", "sources"].map((table) => rows(`/api/${table}`)));
      Object.assign(state, { events, changes, sources, seen: moved, looked: Date.now() });
    }
    state.history.take(state);
    state.failed = null;
    show(); showHistory();
    live("good", "live");
  } catch (error) {
    console.error(error);
    state.failed ??= Date.now();
    live("bad", error.name === "SyntaxError" || error instanceof ApiError ? error.message : `no answer for ${span(Date.now() - state.failed)}`);
  }
}

function live(level, words) {
  $("live").className = `live ${level}`;
  text($("live-text"), words);
}

let timer = 0;
async function turn() {
  clearTimeout(timer);
  if (!document.hidden) await look();
  timer = setTimeout(turn, state.pause);
}

// ---- beginning

function begin() {
  state.token = sessionStorage.getItem("token") ?? "";
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    state.token = given;
    sessionStorage.setItem("token", given);
    // It must not stay in the address bar, nor in the history of the browser.
    history.replaceState(null, "", location.pathname);
  }
  $("search").addEventListener("submit", (event) => {
    event.preventDefault();
    const client = $("client").value.trim();
    if (!client) return;
    $("explained").hidden = false;
    $("explained").focus();
    explain(client, $("explained-title"), $("explained-body"));
  });
  $("explained-close").addEventListener("click", () => { $("explained").hidden = true; $("client").focus(); });
  $("servers-filter").addEventListener("input", () => { state.shown.servers = PORTION; if (state.status) showServers(); });
  for (const what of ["services", "servers"]) {
    $(`${what}-more`).addEventListener("click", () => { state.shown[what] += PORTION; show(); });
  }
  $("change-cancel").addEventListener("click", () => $("change").close());
  $("change-form").addEventListener("submit", (event) => { event.preventDefault(); change(); });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /INPUT|TEXTAREA/.test(event.target.tagName) || $("change").open) return;
    const to = { "/": "client", f: "servers-filter" }[event.key];
    if (to) { event.preventDefault(); $(to).focus(); }
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) turn(); });
  rows("/api/words").then(([words]) => { state.words = words; }).catch(console.error);
  turn();
}

begin();
