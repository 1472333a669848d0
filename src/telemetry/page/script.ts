// SPDX-License-Identifier: Apache-2.0

/**
 * Runs in the browser. Whatever a document says becomes text of an element (`textContent`), never markup: names of
 * pods, labels and messages are other people's. Plain JavaScript, because it is sent as it is.
 */
export const SCRIPT = `
"use strict";
const EVERY_MS = 2000, DECISIONS = 50;
const at = (id) => document.getElementById(id);
const el = (name, text, className) => {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className !== undefined) made.className = className;
  return made;
};
const row = (cells) => {
  const made = el("tr");
  for (const cell of cells) {
    const td = el("td");
    if (cell instanceof Node) td.append(cell);
    else td.textContent = cell ?? "-";
    made.append(td);
  }
  return made;
};
const fill = (id, rows, none) => {
  at(id).replaceChildren(...rows);
  at(id + "-none").hidden = rows.length > 0;
  at(id + "-none").textContent = none;
};
const number = (value, unit) => {
  const made = el("span", unit === undefined ? String(value) : value.toFixed(1) + unit);
  return made;
};
const age = (since, now) => {
  const seconds = Math.max(0, Math.round((Date.parse(now) - Date.parse(since)) / 1000));
  if (since === null || Number.isNaN(seconds)) return "-";
  if (seconds < 120) return seconds + "s";
  if (seconds < 7200) return Math.floor(seconds / 60) + "m";
  return seconds < 172800 ? Math.floor(seconds / 3600) + "h" : Math.floor(seconds / 86400) + "d";
};

/** A document, or what is known instead of it. */
async function read(name) {
  const answer = await fetch("v1/" + name, { cache: "no-store" });
  const json = await answer.json();
  if (answer.ok) return json;
  throw new Error(json.error?.message ?? "HTTP status " + answer.status);
}

/** Samples of one metric in Prometheus' text, with their labels. */
function samples(text, metric) {
  const found = [];
  for (const line of text.split("\\n")) {
    const parsed = /^(\\w+)(?:\\{(.*)\\})? (\\S+)/.exec(line);
    if (parsed === null || parsed[1] !== metric) continue;
    const labels = {};
    for (const [, key, value] of (parsed[2] ?? "").matchAll(/(\\w+)="((?:[^"\\\\]|\\\\.)*)"/g)) labels[key] = value;
    found.push({ labels, value: Number(parsed[3]) });
  }
  return found;
}

function showStatus(status) {
  const verdicts = status.components.map(({ verdict }) => verdict);
  const worst = verdicts.includes("error") ? "error" : verdicts.includes("warn") ? "warn" : "ok";
  const agent = status.source.from === "agent";
  at("node").textContent = status.node ?? "this node";
  document.title = (status.node ?? "node") + " - ambient-cni";
  at("summary").textContent = "ambient-cni " + (status.version ?? "(no agent)") + ", kernel " + status.kernel +
    (status.dataplane.engine === null ? "" : ", engine " + status.dataplane.engine);
  at("verdict").textContent = worst === "ok" ? (agent ? "all is well" : "nothing is known to be wrong") : worst;
  at("verdict").className = agent || worst !== "ok" ? worst : "unknown";
  at("away").hidden = agent;
  at("away").textContent = agent ? "" : "The agent is away: this is what the kernel shows. " + status.source.note;
  fill("parts", status.components.map(({ name, verdict, text }) => row([name, el("span", verdict, verdict), text])), "");
  fill("problems", status.problems.map(({ object, code, message }) => row([object, el("span", code, "error"), message])),
    "none");
}

function showPods({ pods, takenAt }) {
  const wanted = at("filter").value.trim().toLowerCase();
  const shown = pods
    .filter((pod) => !pod.hostNetwork)
    .map((pod) => ({ ...pod, title: pod.name === null ? pod.uid : pod.namespace + "/" + pod.name }))
    .filter((pod) => (pod.title + " " + pod.ips.join(" ") + " " + pod.mesh).toLowerCase().includes(wanted))
    .sort((a, b) => (a.title < b.title ? -1 : 1));
  const mark = { enrolled: "ok", captured: "ok", failing: "error", pending: "warn", draining: "warn", unwanted: "warn" };
  fill("pods", shown.map((pod) => row([pod.title, pod.ips.join(", "), el("span", pod.mesh === "none" ? "no" : pod.mesh, mark[pod.mesh]),
    pod.engine, pod.ztunnel, age(pod.since, takenAt), pod.failure === null ? pod.detail || pod.reason : pod.failure.code + ": " + pod.failure.message])),
    "none");
  at("pods-count").textContent = shown.length + " of " + pods.length;
}

function showDecisions({ pods }) {
  const all = pods.flatMap(({ pod, decisions }) => decisions.map((decision) => ({ pod, ...decision })));
  all.sort((a, b) => (a.at < b.at ? 1 : -1));
  fill("decisions", all.slice(0, DECISIONS).map(({ at: when, pod, what, engine, milliseconds, reason, detail, times }) =>
    row([when.slice(11, 23), pod, times > 1 ? what + " (" + times + "x)" : what, engine,
      milliseconds === null ? "" : milliseconds.toFixed(1) + " ms", [reason, detail].filter((part) => part !== "").join(", ")])),
    "none yet");
}

let before = null;
function showMetrics({ text, takenAt }) {
  const seconds = before === null ? 0 : (Date.parse(takenAt) - before.at) / 1000;
  const counts = new Map();
  for (const { labels, value } of samples(text, "ambient_cni_verdicts_total")) {
    if (value > 0) counts.set(labels.verdict, (counts.get(labels.verdict) ?? 0) + value);
  }
  const rate = (verdict, count) => seconds <= 0 ? 0 : Math.max(0, count - (before.counts.get(verdict) ?? 0)) / seconds;
  const rates = [...counts].map(([verdict, count]) => ({ verdict, count, rate: rate(verdict, count) }));
  const most = Math.max(1, ...rates.map((one) => one.rate));
  fill("verdicts", rates.sort((a, b) => b.count - a.count).map((one) => {
    const bar = el("progress");
    bar.max = most;
    bar.value = one.rate;
    return row([one.verdict.replaceAll("_", " "), number(one.count), seconds > 0 ? number(one.rate, "/s") : "-", bar]);
  }), "no decision about traffic yet");
  if (before === null || seconds > 0) before = { at: Date.parse(takenAt), counts };
}

function showReadiness({ missing }) {
  at("ready").textContent = missing.length === 0 ? "ready" : "not ready: " + missing.join("; ");
  at("ready").className = missing.length === 0 ? "ok" : "error";
}

/** Shows one part; what can't be had says why. */
async function part(name, show, elsewhere) {
  try {
    show(await read(name));
    return true;
  } catch (error) {
    elsewhere(error.message);
    return false;
  }
}

async function refresh() {
  const alive = await part("status", showStatus, (message) => {
    at("away").hidden = false;
    at("away").textContent = "No answer from ambient-cni ui: what is shown is old. " + message;
    at("verdict").textContent = "not known";
    at("verdict").className = "unknown";
  });
  at("taken").textContent = alive ? "seen at " + new Date().toISOString().slice(11, 19) + " UTC" : at("taken").textContent;
  if (alive) {
    await part("pods", showPods, (message) => fill("pods", [], message));
    await part("decisions", showDecisions, (message) => fill("decisions", [], message));
    await part("readiness", showReadiness, (message) => { at("ready").textContent = message; at("ready").className = "unknown"; });
    await part("metrics", showMetrics, (message) => { before = null; fill("verdicts", [], message); });
  }
  document.body.dataset.refreshed = String(Number(document.body.dataset.refreshed ?? 0) + 1);
  setTimeout(refresh, EVERY_MS);
}
at("filter").addEventListener("input", () => { void part("pods", showPods, () => undefined); });
void refresh();
`;
