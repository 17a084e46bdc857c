// What holds for a client: its flows, and which server a new flow would get at each service, and why.

import { exact, rows, span } from "./data.js";
import { el } from "./draw.js";

const counted = (count) => (count === 1 ? "1 server" : `${exact(count)} servers`);

/** Flows that are shown at first. */
const FEW = 8;

const picked = { algorithm: "picked by the algorithm", sticky: "remembered for this client", "last-resort": "last resort" };

function flows(report) {
  const list = report.listed_flows;
  if (!list.length) return el("p", { class: "empty" }, "It has no flows.");
  const row = (flow) => el("tr", {},
    el("td", { class: "first" }, el("span", { class: "mono" }, `${flow.protocol} ${flow.client}`), el("div", { class: "sub" }, `flow ${flow.id}`)),
    el("td", { "data-label": "Service" }, el("span", { class: "name" }, flow.service), el("div", { class: "sub mono" }, flow.listen)),
    el("td", { "data-label": "Server" }, el("span", { class: "name" }, flow.server), el("div", { class: "sub mono" }, flow.server_address)),
    el("td", { "data-label": "State" }, flow.state, el("div", { class: "sub" }, `idle ${span(flow.idle_ms)}, ${span(flow.age_ms)} old`)),
    el("td", { "data-label": "Packets in / out", class: "figure" }, `${exact(flow.packets_in)} / ${exact(flow.packets_out)}`));
  const head = ["Client", "Service", "Server", "State", "Packets in / out"].map((name, place) =>
    el("th", { scope: "col", class: place === 4 ? "figure" : null }, name));
  const rest = el("button", { type: "button", class: "more quiet", onclick: (event) => {
    event.target.previousElementSibling.querySelector("tbody").append(...list.slice(FEW).map(row));
    event.target.remove();
  } }, `Show ${exact(list.length - FEW)} more`);
  const more = report.flows > report.listed ? el("p", { class: "empty" }, `… and ${exact(report.flows - report.listed)} more`) : null;
  return [el("div", { class: "scroll" }, el("table", { class: "rows" }, el("caption", { class: "hidden" }, "Flows of the client"),
    el("thead", {}, el("tr", {}, head)), el("tbody", {}, list.slice(0, FEW).map(row)))), list.length > FEW ? rest : null, more];
}

function candidates(list) {
  if (!list?.length) return null;
  const row = (one) => el("tr", {},
    el("td", { class: "first" }, el("span", { class: "name" }, one.server)),
    el("td", { class: "state" }, one.chosen ? el("span", { class: "pill good" }, "✓ chosen") : one.out ? el("span", { class: "pill bad" }, `✕ ${one.out}`) : el("span", { class: "pill" }, "could")),
    el("td", { "data-label": "Weight", class: "figure" }, String(one.weight)),
    el("td", { "data-label": "Flows", class: "figure" }, exact(one.flows)),
    el("td", { "data-label": "Compared", class: "sub" }, one.score ?? ""));
  const head = ["Server", "Result", "Weight", "Flows", "What is compared"].map((name, place) =>
    el("th", { scope: "col", class: place === 2 || place === 3 ? "figure" : null }, name));
  const most = 50;
  return [el("div", { class: "scroll" }, el("table", { class: "rows" }, el("caption", { class: "hidden" }, "Servers that could take the flow"),
    el("thead", {}, el("tr", {}, head)), el("tbody", {}, list.slice(0, most).map(row)))),
    list.length > most ? el("p", { class: "empty" }, `… and ${exact(list.length - most)} more servers`) : null];
}

function service({ service: name, packet, explanation }) {
  const { outcome, rules, sticky, arithmetic } = explanation;
  const rule = rules?.find((one) => one.matches);
  const facts = [
    rule ? `rule ${rule.rule}` : rules?.length ? "no rule matches" : null,
    outcome.picked_by ? picked[outcome.picked_by] ?? outcome.picked_by : null,
    sticky ? `sticky: ${typeof sticky.server === "string" ? sticky.server : "client is remembered"}` : null,
  ].filter(Boolean);
  return [
    el("h3", {}, `A new flow to ${name}`),
    el("p", {}, el("span", { class: "verdict" }, outcome.server ? `→ ${outcome.server}` : outcome.verdict), `: ${outcome.text}`, facts.length ? el("span", { class: "sub" }, ` (${facts.join("; ")})`) : null),
    arithmetic ? el("p", { class: "sub" }, arithmetic) : null,
    el("details", { open: explanation.candidates?.length <= 6 }, el("summary", {}, `Why: ${counted(explanation.candidates?.length ?? 0)} compared`), candidates(explanation.candidates),
      el("p", { class: "sub mono" }, typeof packet === "string" ? packet : explanation.packet)),
  ];
}

/** Asks about a client, and shows the answer. */
export async function explain(client, title, body) {
  title.textContent = `Client ${client}`;
  body.replaceChildren(el("p", { class: "empty" }, "Looking …"));
  try {
    const [report] = await rows(`/api/explain?client=${encodeURIComponent(client)}`);
    const services = report.explanations;
    body.replaceChildren(...[
      services.length ? services.map(service) : el("p", { class: "empty" }, "No service listens on an address of this client's family."),
      el("h3", {}, `Its flows: ${exact(report.flows)}`), flows(report),
    ].flat(3).filter(Boolean));
  } catch (error) {
    body.replaceChildren(el("p", { class: "error" }, error.name === "TimeoutError" ? "The gateway does not answer in time." : error.message));
  }
}
