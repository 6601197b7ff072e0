// Model: the lines of the page's data as processes, loops and descriptors, with times in
// nanoseconds since the first record. The lines' shapes are those of selectors_ffi/debug/report.py.
"use strict";

const READ = 1, WRITE = 2;
const SLOW = 100e6, STUCK = 1e9; // nanoseconds of a turn
const WAIT = 1, CALL = 2, EVENT = 3, REGISTRATION = 4, LINT = 5, SUM = 6;

// Where a sorted array first has something greater than value; of, what to compare of an item.
function above(array, value, of) {
  let low = 0, high = array.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((of ? of(array[middle]) : array[middle]) > value) high = middle; else low = middle + 1;
  }
  return low;
}

function buildModel(lines) {
  const model = {
    processes: new Map(), threads: new Map(), lints: new Map(), loops: new Map(), tables: new Map(), fds: [],
    findings: [], begin: Infinity, end: 0, records: 0, summed: 0,
  };
  const texts = new Map();
  const items = [];
  for (const line of lines) {
    const kind = line[0];
    if (typeof kind === "number") {
      // The number of a thread may be that of another one later.
      line[2] = model.threads.get(line[2]);
      items.push(line);
      continue;
    }
    if (kind === "text") {
      let table = texts.get(line[1]);
      if (!table) texts.set(line[1], table = [""]);
      table[line[2]] = line[3];
    } else if (kind === "process") {
      const [, pid, parent, base, title, python, system, begun] = line;
      // A process number that comes again is a new process; its texts begin anew.
      if (!model.processes.has(pid)) model.processes.set(pid, { pid, parent, base, title, python, system, begun });
    } else if (kind === "thread") {
      model.threads.set(line[1], { tid: line[1], pid: line[2], name: line[3], main: line[4], loops: new Map() });
    } else if (kind === "lint") {
      model.lints.set(line[1], { id: line[1], name: line[2], cause: line[3], cure: line[4] });
    }
  }
  for (const process of model.processes.values()) model.begin = Math.min(model.begin, process.base);
  for (const line of items) {
    const thread = line[2], process = thread && model.processes.get(thread.pid);
    if (!process) continue;
    line[1] += process.base - model.begin;
    take(model, line, thread, texts.get(thread.pid) || [""]);
  }
  // The process that was started first is the first, although a child may have been traced before it.
  model.processes = new Map([...model.processes].sort(([, one], [, two]) => !one.parent - !two.parent ? one.parent - two.parent : one.base - two.base));
  finish(model);
  return model;
}

function loopOf(model, thread, selector) {
  let loop = thread.loops.get(selector);
  if (loop) return loop;
  const key = thread.tid + " " + thread.pid + " " + selector;
  loop = model.loops.get(key);
  if (!loop) {
    loop = { kind: "loop", pid: thread.pid, thread, selector, waits: [], calls: [], sums: [], events: [], lints: [] };
    model.loops.set(key, loop);
  }
  thread.loops.set(selector, loop);
  return loop;
}

function fdOf(model, pid, selector, fd) {
  let table = model.tables.get(pid);
  if (!table) model.tables.set(pid, table = new Map());
  let fds = table.get(selector);
  if (!fds) table.set(selector, fds = new Map());
  let found = fds.get(fd);
  if (!found) {
    found = { kind: "fd", pid, selector, fd, lives: [], events: [], lints: [], wakes: 0, summed: 0 };
    fds.set(fd, found);
    model.fds.push(found);
  }
  return found;
}

function take(model, line, thread, table) {
  const text = (value) => typeof value === "string" ? value : table[value] || "";
  const [kind, time] = line, selector = text(line[3]);
  const loop = loopOf(model, thread, selector);
  let end = time;
  model.records++;
  if (kind === WAIT) {
    const wait = { kind: "wait", time, end: time + line[4], timeout: line[5], ready: line[6], turn: line[7], loop };
    wait.own = line[4] - line[8];
    wait.at = text(line[9]); // of the turn before it
    end = wait.end;
    loop.waits.push(wait);
  } else if (kind === CALL) {
    const call = {
      kind: "call", time, end: time + line[4], name: text(line[5]), args: text(line[6]), result: line[7],
      note: text(line[8]), errno: text(line[9]), loop,
    };
    end = call.end;
    loop.calls.push(call);
  } else if (kind === EVENT) {
    const fd = fdOf(model, thread.pid, selector, line[4]);
    const event = {
      kind: "event", time, flags: text(line[5]), given: line[6], dropped: text(line[7]), what: text(line[8]),
      object: text(line[9]), owner: text(line[10]), fd, loop,
    };
    fd.events.push(event);
    ownedBy(fd, event.owner);
    loop.events.push(event);
  } else if (kind === REGISTRATION) {
    register(model, line, thread.pid, selector, text);
  } else if (kind === LINT) {
    const fd = line[5] >= 0 ? fdOf(model, thread.pid, selector, line[5]) : null;
    const lint = { kind: "lint", time, id: line[4], fd, message: text(line[6]), place: text(line[7]), loop };
    model.findings.push(lint);
    (fd || loop).lints.push(lint);
    if (fd) loop.lints.push(lint);
  } else if (kind === SUM) {
    const figures = line[4], calls = Object.values(figures.calls).reduce((sum, call) => sum + call[0], 0);
    end = time + figures.end;
    model.records += figures.waits + figures.events + figures.registrations + calls - 1;
    model.summed += figures.waits + figures.events + figures.registrations + calls;
    loop.sums.push({ ...figures, kind: "sum", time, end, loop });
    for (const [fd, count] of figures.fds) fdOf(model, thread.pid, selector, fd).summed += count;
  }
  model.end = Math.max(model.end, end);
}

function register(model, line, pid, selector, text) {
  const [, time, , , action, number, interest] = line;
  if (action === "close") {
    for (const fd of model.fds) if (fd.pid === pid && fd.selector === selector) endLife(fd, time);
    return;
  }
  const fd = fdOf(model, pid, selector, number), error = text(line[11]);
  if (error) return;
  if (action === "register") {
    endLife(fd, time);
    fd.lives.push({
      kind: "life", time, end: Infinity, interest, peer: text(line[7]), what: text(line[8]), object: text(line[9]),
      owner: text(line[10]), place: text(line[12]), fd,
    });
  } else if (action === "unregister") {
    endLife(fd, time);
  } else {
    const life = fd.lives[fd.lives.length - 1];
    if (life && life.end === Infinity) life.interest = interest;
    ownedBy(fd, text(line[10]));
  }
}

// The task that reads begins to wait after the registration, so the newest owner is the best.
function ownedBy(fd, owner) {
  const life = fd.lives[fd.lives.length - 1];
  if (owner && life && life.end === Infinity) life.owner = owner;
}

function endLife(fd, time) {
  const life = fd.lives[fd.lives.length - 1];
  if (life && life.end === Infinity) life.end = time;
}

function finish(model) {
  const byTime = (one, two) => one.time - two.time;
  model.end = Math.max(model.end, 1000);
  for (const loop of model.loops.values()) {
    for (const list of [loop.waits, loop.calls, loop.sums, loop.events]) list.sort(byTime);
    finishLoop(loop);
  }
  for (const fd of model.fds) {
    fd.events.sort(byTime);
    fd.wakes = fd.events.reduce((sum, event) => sum + (event.dropped ? 0 : 1), 0) + fd.summed;
    if (!fd.lives.length && (fd.events.length || fd.summed)) {
      // Registered before the trace began, or after the trace had stopped to name descriptors.
      const event = fd.events.find((event) => event.object) || fd.events[0] || { what: "", object: "", owner: "" };
      fd.lives.push({
        kind: "life", time: event.time || 0, end: Infinity, interest: 0, peer: "", what: event.what, object: event.object,
        owner: event.owner, place: "", fd, unseen: true,
      });
    }
    for (const life of fd.lives) if (life.end === Infinity) { life.end = model.end; life.open = true; }
  }
  model.findings.sort(byTime);
  for (const finding of model.findings) finding.name = (model.lints.get(finding.id) || { name: "" }).name;
  // A selector's other threads may only have registered: they are no loops.
  model.looping = [...model.loops.values()].filter((loop) => loop.waits.length || loop.sums.length);
}

// The time between two waits is the program's. What is summed up is not between two waits.
function finishLoop(loop) {
  const { waits, sums } = loop, count = waits.length;
  loop.starts = Float64Array.from(waits, (wait) => wait.time);
  loop.turns = [];
  loop.busyBefore = new Float64Array(count + 1);
  let busy = 0, waiting = 0, tool = 0, empty = 0, ready = 0, raised = 0;
  for (let index = 0; index < count; index++) {
    const wait = waits[index];
    wait.index = index;
    loop.busyBefore[index] = busy;
    waiting += wait.own;
    tool += wait.end - wait.time - wait.own;
    if (wait.ready > 0) ready += wait.ready; else if (wait.ready === 0) empty++; else raised++;
    if (index + 1 === count) break;
    const turn = { kind: "turn", time: wait.end, end: Math.max(waits[index + 1].time, wait.end), loop, wait };
    const next = above(sums, turn.time - 1, (sum) => sum.time);
    if (next < sums.length && sums[next].time < turn.end) turn.end = turn.time;
    const own = waits[index + 1].turn;
    turn.at = waits[index + 1].at;
    turn.own = turn.end === turn.time ? 0 : own >= 0 ? Math.min(own, turn.end - turn.time) : turn.end - turn.time;
    busy += turn.own;
    tool += turn.end - turn.time - turn.own;
    loop.turns.push(turn);
  }
  loop.busyBefore[count] = busy;
  loop.sumsBefore = new Float64Array(sums.length + 1);
  let summed = 0;
  sums.forEach((sum, index) => {
    loop.sumsBefore[index] = summed;
    summed += sum.turns;
    waiting += sum.waiting;
    empty += sum.empty;
    ready += sum.ready;
    sum.share = sum.turns + sum.waiting ? sum.turns / (sum.turns + sum.waiting) : 0;
  });
  loop.sumsBefore[sums.length] = summed;
  loop.busy = busy + summed;
  loop.waiting = waiting;
  loop.tool = tool;
  loop.empty = empty;
  loop.ready = ready;
  loop.raised = raised;
  loop.count = sums.reduce((sum, one) => sum + one.waits, count);
  loop.share = loop.busy + waiting ? loop.busy / (loop.busy + waiting) : 0;
  loop.longest = loop.turns.reduce((most, turn) => turn.own > lengthOf(most) ? turn : most, null);
  for (const sum of sums)
    if (sum.longest[0] > lengthOf(loop.longest))
      loop.longest = { kind: "turn", time: sum.time + sum.longest[1], end: sum.time + sum.longest[1] + sum.longest[0], loop, wait: null };
}

// What an item took, without the tool's own time where that is known.
const lengthOf = (item) => !item ? -1 : item.own === undefined ? item.end - item.time : item.own;

// Nanoseconds that the loop's thread was busy until a time.
function busyUntil(loop, time) {
  let busy = 0;
  const index = above(loop.starts, time) - 1;
  if (index >= 0) {
    busy += loop.busyBefore[index];
    const turn = loop.turns[index];
    // The tool's own time is spread over the turn.
    if (turn && time > turn.time && turn.end > turn.time) busy += turn.own * Math.min(1, (time - turn.time) / (turn.end - turn.time));
  }
  if (loop.sums.length) {
    const at = above(loop.sums, time, (sum) => sum.time) - 1;
    if (at >= 0) {
      const sum = loop.sums[at], span = Math.max(sum.end - sum.time, 1);
      busy += loop.sumsBefore[at] + sum.turns * Math.min(1, (time - sum.time) / span);
    }
  }
  return busy;
}

// The events that a wait brought: they are told between its end and the next wait.
function eventsOf(wait) {
  const { loop } = wait, next = loop.waits[wait.index + 1];
  const from = above(loop.events, wait.time, (event) => event.time);
  const to = next ? above(loop.events, next.time, (event) => event.time) : loop.events.length;
  return loop.events.slice(from, to);
}

function callsBetween(loop, begin, end) {
  const from = above(loop.calls, begin - 1, (call) => call.time);
  return loop.calls.slice(from, above(loop.calls, end, (call) => call.time));
}

function lifeAt(fd, time) {
  return fd.lives[Math.max(above(fd.lives, time, (life) => life.time) - 1, 0)];
}

// What a wait that timed out was late by, in nanoseconds.
function lateness(model) {
  const late = [];
  for (const loop of model.looping)
    for (const wait of loop.waits)
      if (wait.ready === 0 && typeof wait.timeout === "number" && wait.timeout > 0)
        late.push(Math.max(wait.own - wait.timeout * 1e9, 0));
  return late.sort((one, two) => one - two);
}

function callTable(model) {
  const table = new Map();
  const row = (name) => {
    if (!table.has(name)) table.set(name, { name, count: 0, total: 0, most: 0, errors: 0, errnos: new Map() });
    return table.get(name);
  };
  for (const loop of model.loops.values()) {
    for (const call of loop.calls) {
      const entry = row(call.name), time = call.end - call.time;
      entry.count++;
      entry.total += time;
      entry.most = Math.max(entry.most, time);
      if (call.errno) {
        entry.errors++;
        entry.errnos.set(call.errno, (entry.errnos.get(call.errno) || 0) + 1);
      }
    }
    for (const sum of loop.sums)
      for (const [name, [count, total, errors]] of Object.entries(sum.calls)) {
        const entry = row(name);
        entry.count += count;
        entry.total += total;
        entry.errors += errors;
      }
  }
  return [...table.values()];
}
