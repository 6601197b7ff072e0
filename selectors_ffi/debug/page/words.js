// Words: figures and records as text.
"use strict";

const EVENTS = ["nothing", "read", "write", "read and write"];

function duration(ns) {
  const value = Math.abs(ns);
  if (value < 999.5) return Math.round(ns) + " ns";
  if (value < 999.5e3) return digits(ns / 1e3) + " µs";
  if (value < 999.5e6) return digits(ns / 1e6) + " ms";
  if (value < 120e9) return digits(ns / 1e9) + " s";
  const seconds = Math.round(ns / 1e9), minutes = Math.floor(seconds / 60);
  if (minutes < 120) return minutes + " min " + seconds % 60 + " s";
  return Math.floor(minutes / 60) + " h " + minutes % 60 + " min";
}

function digits(value) {
  const size = Math.abs(value);
  return value.toFixed(size < 9.995 ? 2 : size < 99.95 ? 1 : 0);
}

// A moment, as seconds since the beginning, fine enough to tell neighbours apart.
function moment(ns, step) {
  const places = Math.max(0, Math.min(9, Math.ceil(-Math.log10((step || 1e6) / 1e9) - 1e-9)));
  return (ns / 1e9).toFixed(places) + " s";
}

const thousands = (count) => String(count).replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");

function percent(share) {
  const value = 100 * share;
  if (value > 0 && value < 0.1) return "< 0.1 %";
  if (value > 99.9 && value < 100) return "> 99.9 %";
  return (value < 9.95 || value > 99 && value < 100 ? value.toFixed(1) : value.toFixed(0)).replace(/\.0$/, "") + " %";
}

const plural = (count, one, many) => thousands(count) + " " + (count === 1 ? one : many || one + "s");

function timeoutText(timeout) {
  if (timeout === null || timeout === undefined) return "none: until something is ready";
  if (timeout === 0) return "0: do not wait";
  return typeof timeout === "number" ? duration(timeout * 1e9) : timeout;
}

const addressOf = (life) => life ? life.peer || life.what : "";

const fdTitle = (fd, life) => ("fd " + fd.fd + " " + addressOf(life)).trim();

// What a life belongs to. The file object tells nothing if it is the number itself.
const ownerOf = (life) => life ? life.owner || (/^\d+$/.test(life.object) ? "" : life.object) : "";

function callText(call) {
  let end = call.result === null ? "?" : String(call.result);
  if (call.errno) end += " " + call.errno;
  if (call.note) end += " (" + call.note + ")";
  return call.name + "(" + call.args + ") = " + end;
}

function eventText(event) {
  return "fd " + event.fd.fd + ": " + event.flags + ", " +
    (event.dropped ? "dropped: " + event.dropped : "given as " + (EVENTS[event.given] || event.given));
}

const readyText = (wait) => wait.ready < 0 ? "raised an exception" : wait.ready === 0 ? "nothing ready" : wait.ready + " ready";

// The sentences at the top: what a reader should know first, worst first.
function verdict(model) {
  const said = [], loops = model.looping;
  if (!loops.length) {
    said.push(["No selector waited for anything in this trace.", false]);
    return said;
  }
  const busiest = loops.reduce((most, loop) => loop.busy + loop.waiting > most.busy + most.waiting ? loop : most);
  said.push([
    `The ${loops.length > 1 ? "loop that ran longest" : "loop"} was busy for ${percent(busiest.share)} of ` +
    `${duration(busiest.busy + busiest.waiting)}, and waited for the rest.`, busiest.share > 0.9 && busiest.count > 100,
  ]);
  const longest = longestTurn(model);
  if (longest && lengthOf(longest) >= SLOW)
    said.push([`The longest turn took ${duration(lengthOf(longest))}. No descriptor was served in that time.`, true]);
  const waits = loops.reduce((sum, loop) => sum + loop.count, 0), empty = loops.reduce((sum, loop) => sum + loop.empty, 0);
  if (spins(empty, waits, model.end))
    said.push([`${thousands(empty)} of ${thousands(waits)} waits found nothing ready: the loop does not sleep.`, true]);
  if (model.findings.length) said.push([plural(model.findings.length, "finding") + ": see below.", true]);
  return said;
}

// Waits that end without anything ready are timers. Thousands of them in a second are not.
const spins = (empty, waits, time) => waits > 1000 && empty / waits > 0.8 && empty / (time / 1e9) > 2000;

function longestTurn(model) {
  let most = null;
  for (const { longest } of model.looping)
    if (longest && (!most || lengthOf(longest) > lengthOf(most))) most = longest;
  return most;
}

// The program's part of an owner's text: without numbers and addresses, which differ by instance.
function ownerKind(life) {
  const text = ownerOf(life);
  if (!text) return "unknown (a number was registered)";
  const object = /^<([\w.]+)/.exec(text);
  if (object) return object[1];
  return text.replace(/^task '.*?' of/, "tasks of").replace(/\bprocess \d+/, "processes").replace(/\b0x[0-9a-f]+/, "");
}

// An owner in a few characters: "<_SelectorSocketTransport fd=7 ...>" is "_SelectorSocketTransport".
function ownerShort(life) {
  const owner = ownerOf(life), object = /^<([\w.]+)/.exec(owner), text = object ? object[1] : owner;
  return text.length > 60 ? text.slice(0, 59) + "…" : text;
}

// A title and a line of text for an item.
function headline(item) {
  const at = item.time === undefined ? "" : "at " + moment(item.time, 1e3);
  const took = item.end === undefined ? "" : duration(lengthOf(item));
  switch (item.kind) {
    case "wait": return ["select() waited " + took, readyText(item) + ", " + at];
    case "turn": return ["Turn of " + took, "the program ran between two waits, " + at];
    case "call": return [item.name + " took " + took, callText(item)];
    case "event": return [eventText(item), ownerOf(item) + " " + at];
    case "life": return [fdTitle(item.fd, item), ownerOf(item)];
    case "lint": return [item.id + " " + item.name, item.message];
    case "sum": return ["Summed up: " + took, plural(item.waits, "wait") + ", busy " + percent(item.share) + ", " + at];
    case "row": return rowHeadline(item.row);
  }
  return ["", ""];
}

function rowHeadline(row) {
  if (row.kind === "loop")
    return [row.loop.selector + ", " + row.loop.thread.name, plural(row.loop.count, "wait") + ", busy " + percent(row.loop.share)];
  if (row.kind === "fd") {
    const life = row.fd.lives[row.fd.lives.length - 1];
    return [fdTitle(row.fd, life), ownerOf(life) + ", woke the loop " + plural(row.fd.wakes, "time")];
  }
  return ["Findings", ""];
}
