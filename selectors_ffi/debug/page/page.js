// Page: reads the data, fills the tables, and joins buttons and keys to the timeline.
"use strict";

const id = (name) => document.getElementById(name);

// Make an element. Everything that comes from the traced program goes through append() as text.
function element(name, options, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(options || {})) {
    if (key === "class") made.className = value;
    else if (key === "click") made.addEventListener("click", value);
    else if (value !== undefined && value !== null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== undefined && child !== null));
  return made;
}

function fillHeader(model) {
  const processes = [...model.processes.values()], first = processes[0];
  if (!first) return;
  id("title").textContent = first.title;
  document.title = first.title + ": trace of its selectors";
  const when = new Date(first.begun * 1000), more = processes.length - 1;
  id("subtitle").textContent = [
    first.python + " on " + first.system, "process " + first.pid + (more ? " and " + plural(more, "child", "children") : ""),
    when.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" }), duration(model.end) + " traced",
    plural(model.records, "record"),
  ].join(" · ");
  for (const [sentence, bad] of verdict(model)) id("verdict").append(element("li", { class: bad ? "bad" : "" }, sentence));
  id("footer").textContent = "Made by selectors_ffi. A turn is the time between two waits of one loop; busy is the share of the" +
    " turns." + toolText(model) + (model.summed ? ` ${thousands(model.summed)} records were summed up over intervals, not kept one by one.` : "");
}

function toolText(model) {
  const tool = model.looping.reduce((sum, loop) => sum + loop.tool, 0);
  return tool ? ` Tracing itself took ${duration(tool)}, which is in none of the figures.` : "";
}

function card(label, big, small, warn, share) {
  const bar = share === undefined ? null : element("div", { class: "bar" }, element("i"));
  if (bar) bar.firstChild.style.width = 100 * Math.min(share, 1) + "%";
  return element("div", { class: warn ? "warn" : "" }, element("dt", {}, label), element("dd", { class: "big" }, big),
    element("dd", {}, bar, small));
}

function fillFigures(model) {
  const loops = model.looping, sum = (of) => loops.reduce((total, loop) => total + of(loop), 0);
  const waits = sum((loop) => loop.count), empty = sum((loop) => loop.empty), longest = longestTurn(model);
  const figures = id("figures");
  if (loops.length) {
    const busiest = loops.reduce((most, loop) => loop.busy + loop.waiting > most.busy + most.waiting ? loop : most);
    figures.append(card("Busy", percent(busiest.share), "of " + duration(busiest.busy + busiest.waiting) +
      (loops.length > 1 ? ", " + busiest.selector : ""), busiest.share > 0.9 && busiest.count > 100, busiest.share));
  }
  if (longest) {
    const time = lengthOf(longest);
    figures.append(card("Longest turn", duration(time), "at " + moment(longest.time, 1e6), time >= SLOW));
  }
  figures.append(card("Waits", thousands(waits), waits ? plural(sum((loop) => loop.ready), "event") + " ready" : "", false));
  if (waits) figures.append(card("Empty waits", percent(empty / waits), thousands(empty) + " of " + thousands(waits),
    spins(empty, waits, model.end), empty / waits));
  const late = lateness(model);
  if (late.length) figures.append(card("Timeouts late by", duration(late[late.length >> 1]),
    "median of " + thousands(late.length) + ", most " + duration(late[late.length - 1]), late[late.length - 1] > SLOW));
  const errors = callTable(model).reduce((total, call) => total + call.errors, 0);
  if (errors) figures.append(card("Failed calls", thousands(errors), "see System calls", false));
  figures.append(card("Findings", thousands(model.findings.length), model.findings.length ? "see below" : "none", model.findings.length));
}

// A table whose columns can be sorted. A column is [title, value, how to show it, class].
function table(place, columns, rows, options) {
  const { sorted, limit = 15, none } = options;
  if (!rows.length) {
    place.append(element("p", { class: "good" }, none));
    return;
  }
  let column = sorted, down = true, all = false;
  const head = element("tr"), body = element("tbody");
  const more = element("button", { type: "button", class: "more", click: () => { all = !all; fill(); } });
  const heads = columns.map(([title, value, , kind], index) => {
    const th = element("th", { class: kind, scope: "col" });
    if (value) th.append(element("button", { type: "button", click: () => {
      down = column === index ? !down : kind === "number";
      column = index;
      fill();
    } }, title));
    else th.append(title);
    head.append(th);
    return th;
  });
  function fill() {
    const value = columns[column][1], sign = down ? -1 : 1;
    const ordered = [...rows].sort((one, two) => {
      const [first, second] = [value(one), value(two)];
      return sign * (typeof first === "string" ? first.localeCompare(second) : first - second);
    });
    heads.forEach((th, index) => {
      if (index === column) th.setAttribute("aria-sort", down ? "descending" : "ascending"); else th.removeAttribute("aria-sort");
    });
    body.textContent = "";
    for (const row of all ? ordered : ordered.slice(0, limit))
      body.append(element("tr", {}, ...columns.map(([, get, show, kind]) => {
        const shown = show ? show(row) : get(row);
        return element("td", { class: kind }, shown instanceof Node ? shown : String(shown));
      })));
    more.textContent = all ? "Show fewer" : "Show all " + thousands(rows.length);
  }
  fill();
  place.append(element("div", { class: "scroll" }, element("table", {}, element("thead", {}, head), body)));
  if (rows.length > limit) place.append(more);
}

function fillTables(model, timeline) {
  const showing = (item, row) => element("button", { type: "button", click: () => {
    id("timeline").scrollIntoView({ block: "start" });
    timeline.reveal(item, row);
  } }, "Show");
  fillFindings(model, showing);
  const several = model.looping.length > 1, many = model.processes.size > 1;
  const turns = model.looping.flatMap((loop) => loop.turns).filter((turn) => turn.own > 0)
    .sort((one, two) => two.own - one.own).slice(0, 10);
  table(id("turns"), [
    ["Took", (turn) => turn.own, (turn) => duration(turn.own), "number"],
    ["At", (turn) => turn.time, (turn) => moment(turn.time, 1e6), "number"],
    ["Woken by", (turn) => wokenBy(turn), null, "wide"],
    ...turns.some((turn) => turn.at) ? [["Line", (turn) => turn.at, (turn) => turn.at ? code(turn.at) : "", "wide"]] : [],
    ...several ? [["Loop", (turn) => loopName(model, turn.loop), null, ""]] : [],
    ["", null, (turn) => showing(turn), ""],
  ], turns, { sorted: 0, none: "No selector waited twice." });

  const fds = model.fds.filter((fd) => fd.lives.length);
  const total = fds.reduce((sum, fd) => sum + fd.wakes, 0), last = (fd) => fd.lives[fd.lives.length - 1];
  table(id("descriptors"), [
    ["Wakes", (fd) => fd.wakes, (fd) => thousands(fd.wakes), "number"],
    ["Share", (fd) => fd.wakes, (fd) => shareBar(total ? fd.wakes / total : 0), "share"],
    ["Descriptor", (fd) => fd.fd, (fd) => fdTitle(fd, last(fd)), "wide"],
    ["Owner", (fd) => ownerOf(last(fd)), null, "wide"],
    ["Registered at", (fd) => last(fd).place, (fd) => element("span", { class: "code" }, last(fd).place || "–"), "wide"],
    ...several ? [["Selector", (fd) => fd.selector + (many ? ", " + fd.pid : ""), null, ""]] : [],
    ["", null, (fd) => showing(last(fd)), ""],
  ], fds, { sorted: 0, none: "No descriptor was registered." });

  const owners = new Map();
  for (const fd of fds)
    for (const life of fd.lives) {
      const name = ownerKind(life);
      const entry = owners.get(name) || { name, fds: new Set(), lives: 0, wakes: 0 };
      entry.fds.add(fd);
      entry.lives++;
      owners.set(name, entry);
      life.ownerEntry = entry;
    }
  for (const fd of fds) {
    for (const event of fd.events) if (!event.dropped) lifeAt(fd, event.time).ownerEntry.wakes++;
    last(fd).ownerEntry.wakes += fd.summed;
  }
  table(id("owners"), [
    ["Owner", (owner) => owner.name, null, "wide"],
    ["Registrations", (owner) => owner.lives, (owner) => thousands(owner.lives), "number"],
    ["Descriptors", (owner) => owner.fds.size, (owner) => thousands(owner.fds.size), "number"],
    ["Wakes", (owner) => owner.wakes, (owner) => thousands(owner.wakes), "number"],
    ["Share", (owner) => owner.wakes, (owner) => shareBar(total ? owner.wakes / total : 0), "share"],
  ], [...owners.values()], { sorted: 3, none: "No descriptor was registered." });

  table(id("loops"), [
    ["Loop", (loop) => loopName(model, loop), null, "wide"],
    ["Waits", (loop) => loop.count, (loop) => thousands(loop.count), "number"],
    ["Empty", (loop) => loop.empty, (loop) => thousands(loop.empty), "number"],
    ["Busy", (loop) => loop.share, (loop) => percent(loop.share), "number"],
    ["Share", (loop) => loop.share, (loop) => shareBar(loop.share), "share"],
    ["Waited", (loop) => loop.waiting, (loop) => duration(loop.waiting), "number"],
    ["Longest turn", (loop) => lengthOf(loop.longest), (loop) => loop.longest ? duration(lengthOf(loop.longest)) : "–", "number"],
    ["", null, (loop) => loop.longest ? showing(loop.longest) : "", ""],
  ], model.looping, { sorted: 1, none: "No selector waited." });

  table(id("calls"), [
    ["Call", (call) => call.name, (call) => element("code", {}, call.name), ""],
    ["Calls", (call) => call.count, (call) => thousands(call.count), "number"],
    ["Time", (call) => call.total, (call) => duration(call.total), "number"],
    ["Mean", (call) => call.total / call.count, (call) => duration(call.total / call.count), "number"],
    ["Longest", (call) => call.most, (call) => duration(call.most), "number"],
    ["Failed", (call) => call.errors, (call) => thousands(call.errors), "number"],
    ["Errors", (call) => [...call.errnos.keys()].join(), (call) => [...call.errnos].map(([name, count]) => name + " " + thousands(count)).join(", "), ""],
  ], callTable(model), { sorted: 1, none: "No system call was recorded: the trace was made without syscalls." });
}

function shareBar(share) {
  const bar = element("div", { class: "bar", role: "img", "aria-label": percent(share) }, element("i"));
  bar.firstChild.style.width = 100 * Math.min(share, 1) + "%";
  bar.title = percent(share);
  return bar;
}

function loopName(model, loop) {
  const process = model.processes.size > 1 ? ", process " + loop.pid : "";
  return loop.selector + ", " + loop.thread.name + process;
}

function wokenBy(turn) {
  if (!turn.wait) return "";
  const events = eventsOf(turn.wait).filter((event) => !event.dropped);
  if (!events.length) return turn.wait.ready > 0 ? plural(turn.wait.ready, "descriptor") : "no descriptor: a timeout";
  const names = events.slice(0, 3).map((event) => {
    const life = lifeAt(event.fd, event.time);
    return ownerShort(life) ? `${ownerShort(life)} (${fdTitle(event.fd, life)})` : fdTitle(event.fd, life);
  });
  return names.join(", ") + (events.length > 3 ? " and " + (events.length - 3) + " more" : "");
}

// A message ends with the cure and its page, which have a line of their own here.
function withoutCure(message, known) {
  const end = known.cure ? message.indexOf(known.cure) : -1;
  return end > 0 && /^\s*(\(\S*\))?$/.test(message.slice(end + known.cure.length)) ? message.slice(0, end).trim() : message;
}

function fillFindings(model, showing) {
  const place = id("findings");
  if (!model.findings.length)
    place.append(element("p", { class: "good" }, "None. The checks look for mistakes when the trace is made with -e checks or -e all."));
  for (const lint of model.findings.slice(0, 200)) {
    const known = model.lints.get(lint.id) || { cause: "", cure: "" };
    place.append(element("article", { class: "finding" },
      element("h3", {}, lint.id + " " + lint.name, element("span", { class: "when" }, "at " + moment(lint.time, 1e6)), showing(lint)),
      element("p", { class: "message" }, withoutCure(lint.message, known)),
      known.cause ? element("p", {}, element("b", {}, "Cause. "), known.cause) : null,
      known.cure ? element("p", {}, element("b", {}, "Cure. "), known.cure) : null,
      lint.place ? element("p", { class: "code" }, lint.place) : null));
  }
}

// The panel below the timeline

function pairs(list) {
  const grid = element("dl", { class: "grid" });
  for (const [name, value] of list) if (value !== "" && value !== undefined) grid.append(element("dt", {}, name), element("dd", {}, value));
  return grid;
}

const code = (text) => element("code", {}, text);

function listed(items, show, most = 50) {
  const list = element("ol");
  for (const item of items.slice(0, most)) list.append(element("li", {}, show(item)));
  if (items.length > most) list.append(element("li", {}, `and ${thousands(items.length - most)} more`));
  return list;
}

function showDetails(item) {
  const panel = id("details");
  panel.textContent = "";
  panel.classList.toggle("pinned", !!item);
  if (!item) {
    panel.append(element("p", { class: "empty" }, "Nothing is selected. Click an item, or move with the keys: , and . step from item to item, ↑ and ↓ change the row."));
    return;
  }
  const [title, text] = headline(item);
  panel.append(element("h3", {}, title));
  const at = item.time === undefined ? "" : moment(item.time, 1e3);
  const shows = {
    wait() {
      panel.append(pairs([["Begins", at], ["Timeout", timeoutText(item.timeout)], ["Result", readyText(item)]]));
      panel.append(listed(eventsOf(item), (event) => code(eventText(event) + " " + ownerShort(lifeAt(event.fd, event.time)))));
      panel.append(listed(callsBetween(item.loop, item.time, item.end), (call) => code(callText(call) + " took " + duration(lengthOf(call)))));
    },
    turn() {
      panel.append(pairs([["Begins", at], ["Line", item.at ? code(item.at) : ""], ["Woken by", wokenBy(item)],
        ["Thread", item.loop.thread.name]]));
      panel.append(listed(callsBetween(item.loop, item.time, item.end), (call) => code(callText(call) + " took " + duration(lengthOf(call)))));
      const lints = item.loop.lints.filter((lint) => item.time <= lint.time && lint.time <= item.end);
      panel.append(listed(lints, (lint) => lint.id + ": " + lint.message));
    },
    call() { panel.append(pairs([["Call", code(callText(item))], ["Begins", at], ["Took", duration(lengthOf(item))], ["Thread", item.loop.thread.name]])); },
    event() {
      panel.append(pairs([["At", at], ["Kernel", code(item.flags)], ["Given", item.dropped ? "dropped: " + item.dropped : EVENTS[item.given] || item.given],
        ["Descriptor", fdTitle(item.fd, lifeAt(item.fd, item.time))], ["Owner", ownerOf(lifeAt(item.fd, item.time)) || item.owner || item.object]]));
    },
    life() {
      panel.append(pairs([["Registered", item.unseen ? "before this trace saw it" : at + (item.place ? ", at " + item.place : "")],
        ["Until", item.open ? "the end of the trace" : moment(item.end, 1e3) + ", for " + duration(lengthOf(item))],
        ["Interest", EVENTS[item.interest]], ["Kind", item.what], ["Object", item.object], ["Owner", item.owner], ["Selector", item.fd.selector],
        ["Woke the loop", plural(item.fd.wakes, "time")]]));
    },
    lint() { panel.append(element("p", {}, text), pairs([["At", at], ["Place", item.place ? code(item.place) : ""]])); },
    sum() {
      panel.append(pairs([["Begins", at], ["Waits", `${thousands(item.waits)}, ${thousands(item.empty)} empty`], ["Busy", percent(item.share)],
        ["Longest turn", duration(item.longest[0])], ["Events", thousands(item.events)], ["Registrations", thousands(item.registrations)]]));
    },
    row() { panel.append(element("p", {}, text)); },
  };
  shows[item.kind]();
}

// Buttons and keys

const KEYS = [
  ["← →  or  a d", "move; with Shift, by a whole view"], ["+ −  or  w s", "zoom in and out"], ["0  or  Home", "show everything"],
  [", .", "go to the item before or after, in this row"], ["↑ ↓", "go to another row"], ["Enter", "zoom to the selected item"],
  ["n  N", "next and previous finding"], ["l", "longest turn"], ["/", "filter descriptors"], ["Escape", "select nothing"], ["?", "this list"],
  ["Ctrl and wheel", "zoom at the pointer"], ["Drag", "move; in the overview, choose what to show"], ["Double click", "zoom to an item"],
];

function connect(model, timeline) {
  const longest = longestTurn(model);
  const actions = {
    in: () => timeline.zoom(0.5), out: () => timeline.zoom(2), fit: () => timeline.fit(),
    longest: () => longest && timeline.reveal(longest),
    finding: () => timeline.finding(1), help: () => id("help").showModal(),
  };
  for (const button of document.querySelectorAll("[data-do]")) button.addEventListener("click", actions[button.dataset.do]);
  document.querySelector("[data-do=finding]").disabled = !model.findings.length;
  document.querySelector("[data-do=longest]").disabled = !longest;
  for (const [keys, text] of KEYS)
    id("keys").append(element("tr", {}, element("td", {}, element("kbd", {}, keys)), element("td", {}, text)));
  const filter = id("filter");
  const count = () => {
    const fds = timeline.filter(filter.value), all = model.fds.filter((fd) => fd.lives.length).length;
    id("shown").textContent = filter.value.trim() ? `${thousands(fds)} of ${plural(all, "descriptor")}` : plural(all, "descriptor");
  };
  filter.addEventListener("input", count);
  filter.addEventListener("keydown", (event) => { if (event.key === "Escape") { filter.value = ""; count(); id("tracks").focus(); } });
  count();
  const zoomTo = () => {
    const item = timeline.selected;
    if (item && item.time !== undefined) {
      const span = Math.max((item.end || item.time) - item.time, 2000);
      timeline.look(item.time - span * 0.2, item.time + span * 1.2);
    }
  };
  const keys = {
    ArrowLeft: (shift) => timeline.move(shift ? -1 : -0.12), ArrowRight: (shift) => timeline.move(shift ? 1 : 0.12),
    a: () => timeline.move(-0.12), d: () => timeline.move(0.12), A: () => timeline.move(-1), D: () => timeline.move(1),
    "+": () => timeline.zoom(0.6), "=": () => timeline.zoom(0.6), w: () => timeline.zoom(0.6),
    "-": () => timeline.zoom(1 / 0.6), "−": () => timeline.zoom(1 / 0.6), s: () => timeline.zoom(1 / 0.6),
    0: actions.fit, Home: actions.fit, ",": () => timeline.step(-1), ".": () => timeline.step(1),
    ArrowUp: () => timeline.stepRow(-1), ArrowDown: () => timeline.stepRow(1), Enter: zoomTo,
    Escape: () => { timeline.select(null); timeline.tip.hidden = true; },
  };
  const everywhere = {
    n: () => timeline.finding(1), N: () => timeline.finding(-1), l: actions.longest, "?": actions.help, "/": () => filter.focus(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) || id("help").open) return;
    const action = everywhere[event.key] || (id("tracks").contains(event.target) && keys[event.key]);
    if (!action) return;
    event.preventDefault();
    action(event.shiftKey);
  });
}

function fillLegend() {
  const names = [["busy", "busy"], ["slow", "turn of 0.1 s or more"], ["stuck", "1 s or more"], ["wait", "waiting"], ["call", "system call"],
    ["read", "readable"], ["write", "writable"], ["hangup", "hang-up or error"], ["finding", "finding"]];
  for (const [name, text] of names) {
    const mark = element("i");
    mark.style.background = `var(--${name})`;
    id("legend").append(element("li", {}, mark, text));
  }
}

function begin() {
  let lines;
  try {
    lines = JSON.parse(id("trace").textContent);
  } catch (error) {
    id("problem").textContent = "The data in this page is not complete: " + error.message;
    id("problem").hidden = false;
    return;
  }
  const model = buildModel(lines);
  id("trace").remove();
  if (!model.processes.size) {
    id("problem").textContent = "Nothing was recorded: no selector was made while the trace ran.";
    id("problem").hidden = false;
    return;
  }
  id("main").hidden = false;
  fillHeader(model);
  fillFigures(model);
  fillLegend();
  const timeline = new Timeline(model, showDetails);
  showDetails(null);
  connect(model, timeline);
  fillTables(model, timeline);
  window.timeline = timeline;
  requestAnimationFrame(() => requestAnimationFrame(() => {
    document.documentElement.dataset.opened = Math.round(performance.now());
  }));
}

document.addEventListener("DOMContentLoaded", begin);
