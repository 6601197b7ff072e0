// Timeline: rows of loops and descriptors on a canvas, with an overview and an axis above.
"use strict";

const HEADER = 26, LOOP = 52, FD = 22, FINDINGS = 22;
const HANGUP = /HUP|ERR|NVAL|EV_EOF|EV_ERROR/;

class Timeline {
  constructor(model, show) {
    this.model = model;
    this.show = show; // called with the item that is selected, or null
    this.overview = document.getElementById("overview");
    this.axis = document.getElementById("axis");
    this.lanes = document.getElementById("lanes");
    this.tracks = document.getElementById("tracks");
    this.spacer = document.getElementById("spacer");
    this.tip = document.getElementById("tip");
    const margin = model.end * 0.01;
    this.whole = [-margin, model.end + margin];
    this.view = [...this.whole];
    this.selected = null;
    this.row = null;
    this.needle = "";
    this.pending = false;
    this.arrange();
    this.readColours();
    this.listen();
    new ResizeObserver(() => this.measure()).observe(this.tracks);
    this.measure();
  }

  // Rows

  arrange() {
    const { model } = this, needle = this.needle.toLowerCase();
    this.rows = [];
    this.fdCount = 0;
    const several = model.processes.size > 1;
    if (model.findings.length) this.rows.push({ kind: "findings", height: FINDINGS });
    for (const process of model.processes.values()) {
      const loops = model.looping.filter((loop) => loop.pid === process.pid);
      const fds = model.fds.filter((fd) => fd.pid === process.pid && fd.lives.length);
      if (several) this.rows.push({ kind: "header", height: HEADER, process });
      const selectors = new Set([...loops, ...fds].map((one) => one.selector));
      for (const selector of selectors) {
        for (const loop of loops)
          if (loop.selector === selector) this.rows.push({ kind: "loop", height: LOOP, loop });
        const mine = fds.filter((fd) => fd.selector === selector).sort((one, two) => one.fd - two.fd);
        for (const fd of mine) {
          if (needle && !fd.lives.some((life) => (fdTitle(fd, life) + " " + life.owner + " " + life.object).toLowerCase().includes(needle)))
            continue;
          this.fdCount++;
          this.rows.push({ kind: "fd", height: FD, fd });
        }
      }
    }
    let top = 0;
    for (const row of this.rows) { row.top = top; top += row.height; }
    this.height = Math.max(top, LOOP);
    if (this.row) this.row = this.rows.find((row) => (row.fd || row.loop) === (this.row.fd || this.row.loop)) || null;
  }

  filter(text) {
    this.needle = text.trim();
    this.arrange();
    this.measure();
    return this.fdCount;
  }

  // Size and colours

  measure() {
    const ratio = window.devicePixelRatio || 1;
    // In CSS pixels; the scroll bar's place is left free in all three.
    this.width = this.tracks.clientWidth;
    this.spacer.style.height = this.height + "px";
    this.port = Math.min(this.height, parseFloat(getComputedStyle(this.tracks).maxHeight) || 600);
    this.label = this.width < 640 ? Math.min(120, this.width * 0.32) : Math.min(300, this.width * 0.24);
    for (const [canvas, height] of [[this.overview, 44], [this.axis, 24], [this.lanes, this.port]]) {
      canvas.style.height = height + "px";
      const width = canvas === this.lanes ? this.width : canvas.clientWidth;
      canvas.width = Math.max(1, Math.round(width * ratio));
      canvas.height = Math.max(1, Math.round(height * ratio));
      canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
    }
    this.draw();
  }

  readColours() {
    const style = getComputedStyle(document.documentElement);
    this.colours = {};
    for (const name of ["surface", "ink", "soft", "line", "busy", "wait", "slow", "stuck", "call", "read", "write", "hangup",
      "dropped", "life", "sum", "finding", "select", "hover", "accent"])
      this.colours[name] = style.getPropertyValue("--" + name).trim();
    this.font = getComputedStyle(document.body).fontFamily;
  }

  x(time) { return this.label + (time - this.view[0]) / (this.view[1] - this.view[0]) * (this.width - this.label); }
  time(x) { return this.view[0] + (x - this.label) / (this.width - this.label) * (this.view[1] - this.view[0]); }

  // Moves

  look(begin, end) {
    const shortest = 200, [first, last] = this.whole;
    let span = Math.min(Math.max(end - begin, shortest), last - first);
    const middle = (begin + end) / 2;
    begin = Math.min(Math.max(middle - span / 2, first), last - span);
    this.view = [begin, begin + span];
    this.draw();
  }

  zoom(factor, around) {
    const [begin, end] = this.view, at = around === undefined ? (begin + end) / 2 : around;
    this.look(at - (at - begin) * factor, at + (end - at) * factor);
  }

  move(part) {
    const span = this.view[1] - this.view[0];
    this.look(this.view[0] + part * span, this.view[1] + part * span);
  }

  fit() { this.look(...this.whole); }

  rowOf(item) {
    const mine = item.kind === "lint" ? item.fd || item.loop : item.kind === "event" || item.kind === "life" ? item.fd : item.loop;
    return this.rows.find((row) => (row.fd || row.loop) === mine) || this.row;
  }

  // Show an item; its surroundings, too, unless it is in the view in a size that can be seen.
  reveal(item, row) {
    this.select(item, row);
    const end = item.end || item.time, span = this.view[1] - this.view[0];
    const visible = item.time >= this.view[0] && end <= this.view[1];
    const wide = (end - item.time) / span * (this.width - this.label);
    if (!visible || (end > item.time && wide < 4)) {
      const around = Math.max((end - item.time) * 4, end > item.time ? 0 : Math.min(span, 20e6));
      const middle = (item.time + end) / 2;
      if (visible || wide > this.width || wide < 4) this.look(middle - around / 2, middle + around / 2);
      else this.look(middle - span / 2, middle + span / 2);
    }
    this.draw();
  }

  select(item, row) {
    this.selected = item;
    this.row = row || (item && this.rowOf(item)) || this.row;
    if (this.row) this.scrollTo(this.row);
    this.show(item);
    this.draw();
  }

  scrollTo(row) {
    const { tracks } = this;
    if (row.top < tracks.scrollTop) tracks.scrollTop = row.top;
    else if (row.top + row.height > tracks.scrollTop + this.port) tracks.scrollTop = row.top + row.height - this.port;
  }

  // The items of a row in the order of time.
  itemsOf(row) {
    if (!row) return [];
    if (row.kind === "findings") return this.model.findings;
    if (row.kind === "fd") {
      if (!row.items) row.items = [...row.fd.lives, ...row.fd.events, ...row.fd.lints].sort((one, two) => one.time - two.time);
      return row.items;
    }
    if (row.kind === "loop") {
      if (!row.items) row.items = [...row.loop.waits, ...row.loop.turns, ...row.loop.sums].sort((one, two) => one.time - two.time);
      return row.items;
    }
    return [];
  }

  step(by) {
    if (!this.row) this.row = this.rows.find((row) => row.kind === "loop") || this.rows[0];
    const items = this.itemsOf(this.row);
    if (!items.length) return;
    let index = items.indexOf(this.selected);
    if (index >= 0) index += by;
    else index = above(items, this.view[0], (item) => item.time) - (by > 0 ? 0 : 1);
    this.reveal(items[Math.min(Math.max(index, 0), items.length - 1)], this.row);
  }

  stepRow(by) {
    const rows = this.rows.filter((row) => row.kind !== "header");
    if (!rows.length) return;
    const index = rows.indexOf(this.row);
    this.row = rows[Math.min(Math.max(index < 0 ? 0 : index + by, 0), rows.length - 1)];
    this.scrollTo(this.row);
    this.selected = null;
    this.show({ kind: "row", row: this.row });
    this.draw();
  }

  finding(by) {
    const { findings } = this.model;
    if (!findings.length) return;
    const index = findings.indexOf(this.selected);
    this.reveal(findings[(index + by + findings.length) % findings.length]);
  }

  // What is at a point of the canvas of rows: its row, and an item or null.
  at(x, y) {
    const row = this.rows[above(this.rows, y, (row) => row.top) - 1];
    if (!row || y > row.top + row.height) return { row: null, item: null };
    if (x < this.label) return { row, item: null, label: true };
    const time = this.time(x), reach = (this.view[1] - this.view[0]) / (this.width - this.label) * 5;
    return { row, item: this.itemAt(row, time, reach, y - row.top) };
  }

  itemAt(row, time, reach, y) {
    if (row.kind === "findings") return nearest(this.model.findings, time, reach);
    if (row.kind === "fd") {
      const { fd } = row;
      return nearest(fd.lints, time, reach) || nearest(fd.events, time, reach) ||
        fd.lives.find((life) => life.time - reach <= time && time <= life.end + reach) || null;
    }
    if (row.kind !== "loop") return null;
    const { loop } = row;
    if (y > 36) return within(loop.calls, time, reach) || nearest(loop.calls, time, reach);
    const wait = loop.waits[above(loop.starts, time) - 1];
    if (wait) {
      if (time <= wait.end) return wait;
      const turn = loop.turns[wait.index];
      if (turn && time <= turn.end) return turn;
    }
    return within(loop.sums, time, 0) || nearest(loop.waits, time, reach);
  }

  // Drawing. Nothing is drawn twice before the browser shows it.

  draw() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.drawOverview();
      this.drawAxis();
      this.drawRows();
    });
  }

  ticks() {
    const span = this.view[1] - this.view[0], room = Math.max((this.width - this.label) / 110, 2);
    let step = 10 ** Math.floor(Math.log10(span / room));
    for (const factor of [1, 2, 5, 10]) if (span / (step * factor) <= room) { step *= factor; break; }
    const ticks = [];
    for (let at = Math.max(0, Math.ceil(this.view[0] / step) * step); at <= Math.min(this.view[1], this.model.end * 1.01); at += step) ticks.push(at);
    return [ticks, step];
  }

  drawAxis() {
    const context = this.axis.getContext("2d"), { colours } = this;
    context.clearRect(0, 0, this.axis.width, 24);
    context.font = "12px " + this.font;
    context.textBaseline = "middle";
    context.fillStyle = colours.soft;
    context.fillText(clip(context, duration(this.view[1] - this.view[0]) + " shown", this.label - 16), 10, 12);
    const [ticks, step] = this.ticks();
    context.textAlign = "center";
    for (const tick of ticks) {
      const x = this.x(tick), text = moment(tick, step), half = context.measureText(text).width / 2;
      context.fillStyle = colours.line;
      context.fillRect(Math.round(x), 18, 1, 6);
      context.fillStyle = colours.soft;
      if (x - half > this.label - 4 && x + half < this.width) context.fillText(text, x, 10);
    }
    context.textAlign = "left";
  }

  drawOverview() {
    const context = this.overview.getContext("2d"), { colours, model } = this;
    const left = this.label, width = this.width - left, span = this.whole[1] - this.whole[0];
    const at = (time) => left + (time - this.whole[0]) / span * width;
    context.clearRect(0, 0, this.overview.width, 44);
    context.font = "12px " + this.font;
    context.textBaseline = "middle";
    context.fillStyle = colours.soft;
    context.fillText(clip(context, "Busy, whole trace", left - 16), 10, 22);
    if (!this.profile || this.profile.length !== Math.ceil(width)) {
      // The busiest loop of each column.
      this.profile = new Float32Array(Math.ceil(width));
      for (const loop of model.looping) {
        let before = 0;
        for (let column = 0; column < this.profile.length; column++) {
          const until = busyUntil(loop, this.whole[0] + (column + 1) / width * span);
          this.profile[column] = Math.max(this.profile[column], (until - before) / (span / width));
          before = until;
        }
      }
    }
    context.fillStyle = colours.wait;
    context.fillRect(at(0), 8, at(model.end) - at(0), 28);
    context.fillStyle = colours.busy;
    this.profile.forEach((share, column) => {
      if (share > 0) context.fillRect(left + column, 36 - Math.max(28 * Math.min(share, 1), 1), 1, Math.max(28 * Math.min(share, 1), 1));
    });
    for (const finding of model.findings) marker(context, at(finding.time), 8, 4, colours.finding);
    const [begin, end] = this.view.map(at);
    context.fillStyle = colours.surface;
    context.globalAlpha = 0.6;
    context.fillRect(left, 2, begin - left, 40);
    context.fillRect(end, 2, this.width - end, 40);
    context.globalAlpha = 1;
    context.strokeStyle = colours.accent;
    context.lineWidth = 1.5;
    context.strokeRect(begin + 0.75, 2.75, Math.max(end - begin - 1.5, 2), 38.5);
    if (this.brush) {
      const [from, to] = this.brush.map(at);
      context.fillStyle = colours.accent;
      context.globalAlpha = 0.25;
      context.fillRect(Math.min(from, to), 2, Math.abs(to - from), 40);
      context.globalAlpha = 1;
    }
  }

  drawRows() {
    const context = this.lanes.getContext("2d"), { colours } = this, scroll = this.tracks.scrollTop;
    context.clearRect(0, 0, this.width, this.port);
    context.fillStyle = colours.surface;
    context.fillRect(0, 0, this.width, this.port);
    context.textBaseline = "middle";
    context.save();
    context.translate(0, -scroll);
    const first = Math.max(above(this.rows, scroll, (row) => row.top) - 1, 0);
    const shown = [];
    for (let index = first; index < this.rows.length && this.rows[index].top < scroll + this.port; index++) shown.push(this.rows[index]);
    for (const row of shown) {
      if (row === this.row) {
        context.fillStyle = colours.hover;
        context.fillRect(0, row.top, this.width, row.height);
      }
    }
    context.fillStyle = colours.line;
    for (const tick of this.ticks()[0]) if (this.x(tick) >= this.label) context.fillRect(Math.round(this.x(tick)), scroll, 1, this.port);
    for (const row of shown) {
      context.fillStyle = colours.line;
      context.fillRect(0, row.top + row.height - 1, this.width, 1);
      context.save();
      context.beginPath();
      context.rect(this.label, row.top, this.width - this.label, row.height);
      context.clip();
      if (row.kind === "loop") this.drawLoop(context, row);
      else if (row.kind === "fd") this.drawFd(context, row);
      else if (row.kind === "findings")
        for (const finding of this.model.findings) marker(context, this.x(finding.time), row.top + row.height / 2, 6, colours.finding);
      this.drawSelection(context, row);
      context.restore();
      this.drawLabel(context, row);
    }
    context.fillStyle = colours.line;
    context.fillRect(this.label - 1, scroll, 1, this.port);
    context.restore();
  }

  drawLabel(context, row) {
    const { colours } = this, room = this.label - 18, middle = row.top + row.height / 2;
    const put = (text, x, y, colour, font) => {
      context.font = font + " " + this.font;
      context.fillStyle = colour;
      context.fillText(clip(context, text, room - x + 10), x, y);
    };
    if (row.kind === "findings") {
      put(plural(this.model.findings.length, "finding"), 10, middle, colours.finding, "600 12px");
    } else if (row.kind === "header") {
      put(row.process.title + "  " + row.process.pid, 10, middle, colours.ink, "600 13px");
    } else if (row.kind === "loop") {
      put(row.loop.selector, 10, row.top + 17, colours.ink, "600 13px");
      put(row.loop.thread.name + ", busy " + percent(row.loop.share), 10, row.top + 35, colours.soft, "12px");
    } else {
      const middleTime = (this.view[0] + this.view[1]) / 2, { lives } = row.fd;
      const seen = lives.filter((life) => life.time <= this.view[1] && life.end >= this.view[0]);
      const life = seen.find((life) => life.time <= middleTime && life.end >= middleTime) || seen[seen.length - 1] || lifeAt(row.fd, middleTime);
      const owner = ownerShort(life), ink = seen.length ? colours.ink : colours.dropped;
      let x = 18;
      for (const [text, colour] of [["fd " + row.fd.fd, ink], [owner, ink], [addressOf(life), seen.length ? colours.soft : colours.dropped]]) {
        if (!text || room - x < 16) continue;
        put(text, x, middle, colour, "12px");
        x += context.measureText(text).width + 8;
      }
    }
  }

  drawLoop(context, row) {
    const { colours } = this, { loop } = row, top = row.top + 8, tall = 26;
    const [begin, end] = this.view, left = Math.max(this.label, this.x(0)), right = this.width;
    const from = Math.max(above(loop.starts, begin) - 1, 0), to = above(loop.starts, end);
    for (const sum of loop.sums) {
      if (sum.end < begin || sum.time > end) continue;
      const x = this.x(sum.time), width = Math.max(this.x(sum.end) - x, 1);
      context.fillStyle = colours.wait;
      context.fillRect(x, top, width, tall);
      context.fillStyle = colours.sum;
      context.fillRect(x, top + tall * (1 - sum.share), width, tall * sum.share);
    }
    if (to - from > (right - left) / 3) this.drawColumns(context, loop, top, tall);
    else for (let index = from; index < to; index++) this.drawTurn(context, loop, index, top, tall);
    // Long turns are always seen.
    for (let index = from; index < Math.min(to, loop.turns.length); index++) {
      const turn = loop.turns[index], time = turn.own;
      if (time < SLOW) continue;
      const x = this.x(turn.time), width = Math.max(this.x(turn.end) - x, 2);
      context.fillStyle = time < STUCK ? colours.slow : colours.stuck;
      context.fillRect(x, top, width, tall);
      this.inscribe(context, duration(time), x, width, top + tall / 2, colours.surface);
    }
    this.drawCalls(context, loop, row.top + 38);
    for (const lint of loop.lints) marker(context, this.x(lint.time), row.top + 6, 4, colours.finding);
  }

  drawTurn(context, loop, index, top, tall) {
    const { colours } = this, wait = loop.waits[index], turn = loop.turns[index];
    const x = this.x(wait.time), width = Math.max(this.x(wait.end) - x, 0.5);
    context.fillStyle = colours.wait;
    context.fillRect(x, top, width, tall);
    this.inscribe(context, "waited " + duration(wait.own) + ", " + readyText(wait), x, width, top + tall / 2, colours.soft);
    if (!turn || turn.own >= SLOW) return;
    const begin = this.x(turn.time), wide = Math.max(this.x(turn.end) - begin, 0.75);
    context.fillStyle = colours.busy;
    context.fillRect(begin, top, wide, tall);
    this.inscribe(context, duration(turn.own), begin, wide, top + tall / 2, colours.surface);
  }

  inscribe(context, text, x, width, y, colour) {
    const left = Math.max(x, this.label), room = Math.min(x + width, this.width) - left - 10;
    if (room < 30) return;
    context.font = "12px " + this.font;
    const fitting = clip(context, text, room);
    if (fitting.length < 3) return;
    context.fillStyle = colour;
    context.fillText(fitting, left + 5, y);
  }

  // Many turns: the height of each column is the share that was busy.
  drawColumns(context, loop, top, tall) {
    const { colours } = this, first = loop.waits[0], last = loop.waits[loop.waits.length - 1];
    const left = Math.max(this.label, Math.floor(this.x(first.time))), right = Math.min(this.width, Math.ceil(this.x(last.end)));
    let before = busyUntil(loop, this.time(left));
    for (let x = left; x < right; x++) {
      const until = busyUntil(loop, this.time(x + 1));
      const share = (until - before) / (this.time(x + 1) - this.time(x));
      before = until;
      const index = above(loop.sums, this.time(x), (sum) => sum.time) - 1;
      if (index >= 0 && loop.sums[index].end >= this.time(x)) continue;
      context.fillStyle = colours.wait;
      context.fillRect(x, top, 1, tall);
      if (share <= 0) continue;
      const height = Math.max(tall * Math.min(share, 1), 1);
      context.fillStyle = colours.busy;
      context.fillRect(x, top + tall - height, 1, height);
    }
  }

  drawCalls(context, loop, y) {
    const { colours } = this, [begin, end] = this.view;
    let index = Math.max(above(loop.calls, begin, (call) => call.time) - 1, 0);
    let drawn = -1;
    while (index < loop.calls.length && loop.calls[index].time <= end) {
      const call = loop.calls[index], x = this.x(call.time), width = Math.max(this.x(call.end) - x, 1);
      context.fillStyle = call.errno ? colours.hangup : colours.call;
      if (x + width > drawn + 0.5 || call.errno) context.fillRect(x, y, Math.max(width - (width > 3 ? 0.5 : 0), 1), 8);
      drawn = Math.max(drawn, x + width);
      // On to the first call of the next pixel.
      const next = above(loop.calls, this.time(Math.floor(x) + 1), (one) => one.time);
      index = Math.max(index + 1, width > 1 ? index + 1 : Math.min(next, index + 64));
    }
  }

  drawFd(context, row) {
    const { colours } = this, { fd } = row, y = row.top + 5, tall = FD - 11, [begin, end] = this.view;
    for (const life of fd.lives) {
      if (life.end < begin || life.time > end) continue;
      const x = this.x(life.time), width = Math.max(this.x(life.end) - x, 1.5);
      context.fillStyle = colours.life;
      context.beginPath();
      if (context.roundRect && width > 4) context.roundRect(x, y + 2, width, tall - 4, 3); else context.rect(x, y + 2, width, tall - 4);
      context.fill();
    }
    let index = above(fd.events, begin - 1, (event) => event.time);
    while (index < fd.events.length && fd.events[index].time <= end) {
      const x = Math.floor(this.x(fd.events[index].time));
      const next = Math.max(above(fd.events, this.time(x + 1), (event) => event.time), index + 1);
      let given = 0, hangup = false;
      for (const event of fd.events.slice(index, Math.min(next, index + 64))) {
        if (!event.dropped) given |= event.given;
        hangup = hangup || HANGUP.test(event.flags);
      }
      index = next;
      // Of two things in one pixel, each gets a part of its height.
      const parts = [];
      if (hangup) parts.push(colours.hangup);
      if (given & READ) parts.push(colours.read);
      if (given & WRITE) parts.push(colours.write);
      if (!parts.length) parts.push(colours.dropped);
      parts.forEach((colour, part) => {
        context.fillStyle = colour;
        context.fillRect(x - 0.5, y + tall * part / parts.length, 2, tall / parts.length);
      });
    }
    for (const lint of fd.lints) marker(context, this.x(lint.time), row.top + row.height / 2, 5, colours.finding);
  }

  drawSelection(context, row) {
    const item = this.selected;
    if (!item || !item.kind || item.time === undefined) return;
    if (this.rowOf(item) !== row && !(item.kind === "lint" && row.kind === "findings")) return;
    const x = this.x(item.time), width = Math.max(this.x(item.end || item.time) - x, 0);
    const call = item.kind === "call", loop = row.kind === "loop";
    const top = row.top + (call ? 36.5 : loop ? 6.5 : 1.5), tall = call ? 11 : loop ? 29 : row.height - 4;
    context.strokeStyle = this.colours.select;
    context.lineWidth = 2;
    context.strokeRect(Math.max(x - 3, this.label - 4), top, Math.min(width + 6, this.width * 2), tall);
  }

  // The mouse, and fingers

  listen() {
    const { lanes, overview, tracks } = this;
    tracks.addEventListener("scroll", () => this.draw(), { passive: true });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.readColours(); this.draw(); });
    window.addEventListener("resize", () => this.measure());
    tracks.addEventListener("wheel", (event) => {
      if (event.ctrlKey || event.metaKey) {
        event.preventDefault();
        this.zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) * 0.01), this.time(event.offsetX));
      } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        event.preventDefault();
        this.move((event.deltaX || event.deltaY) / (this.width - this.label));
      }
    }, { passive: false });
    let grip = null;
    lanes.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      grip = { x: event.clientX, view: [...this.view], moved: false };
      lanes.setPointerCapture(event.pointerId);
    });
    lanes.addEventListener("pointermove", (event) => {
      if (!grip) { this.hint(event); return; }
      const by = event.clientX - grip.x;
      if (Math.abs(by) > 3) grip.moved = true;
      if (!grip.moved) return;
      lanes.classList.add("moving");
      this.tip.hidden = true;
      const shift = by / (this.width - this.label) * (grip.view[1] - grip.view[0]);
      this.look(grip.view[0] - shift, grip.view[1] - shift);
    });
    lanes.addEventListener("pointerup", (event) => {
      lanes.classList.remove("moving");
      if (grip && !grip.moved) this.press(event);
      grip = null;
    });
    lanes.addEventListener("pointercancel", () => { grip = null; });
    lanes.addEventListener("pointerleave", () => { this.tip.hidden = true; });
    lanes.addEventListener("dblclick", (event) => {
      const { item } = this.at(event.offsetX, event.offsetY + tracks.scrollTop);
      if (item && item.end > item.time) this.look(item.time - (item.end - item.time) / 2, item.end + (item.end - item.time) / 2);
      else this.zoom(0.4, this.time(event.offsetX));
    });
    const overviewTime = (event) =>
      this.whole[0] + (event.offsetX - this.label) / (this.width - this.label) * (this.whole[1] - this.whole[0]);
    overview.addEventListener("pointerdown", (event) => {
      overview.setPointerCapture(event.pointerId);
      this.brush = [overviewTime(event), overviewTime(event)];
    });
    overview.addEventListener("pointermove", (event) => {
      if (!this.brush) return;
      this.brush[1] = overviewTime(event);
      this.draw();
    });
    overview.addEventListener("pointerup", () => {
      if (!this.brush) return;
      const [from, to] = this.brush.sort((one, two) => one - two);
      this.brush = null;
      if (to - from > (this.whole[1] - this.whole[0]) * 0.004) this.look(from, to);
      else { const half = (this.view[1] - this.view[0]) / 2; this.look(from - half, from + half); }
    });
  }

  press(event) {
    const { row, item, label } = this.at(event.offsetX, event.offsetY + this.tracks.scrollTop);
    if (label && row && row.kind !== "header") {
      this.row = row;
      this.selected = null;
      this.show({ kind: "row", row });
      this.draw();
    } else this.select(item, row && row.kind !== "header" ? row : null);
  }

  hint(event) {
    const { row, item, label } = this.at(event.offsetX, event.offsetY + this.tracks.scrollTop), { tip } = this;
    const found = item || (label && row && row.kind !== "header" && row.kind !== "findings" ? { kind: "row", row } : null);
    if (!found) { tip.hidden = true; return; }
    const [title, text] = headline(found);
    tip.textContent = "";
    const bold = document.createElement("b");
    bold.textContent = title;
    tip.append(bold, text);
    tip.hidden = false;
    const width = tip.offsetWidth, height = tip.offsetHeight;
    tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 8)) + "px";
    tip.style.top = (event.clientY + 18 + height > innerHeight ? event.clientY - height - 10 : event.clientY + 18) + "px";
  }
}

function nearest(items, time, reach) {
  const index = above(items, time, (item) => item.time);
  let best = null;
  for (const item of [items[index - 1], items[index]])
    if (item && Math.abs(item.time - time) <= reach && (!best || Math.abs(item.time - time) < Math.abs(best.time - time))) best = item;
  return best;
}

function within(items, time, reach) {
  const item = items[above(items, time, (one) => one.time) - 1];
  return item && time <= item.end + reach ? item : null;
}

function marker(context, x, y, size, colour) {
  context.fillStyle = colour;
  context.beginPath();
  context.moveTo(x, y - size);
  context.lineTo(x + size, y);
  context.lineTo(x, y + size);
  context.lineTo(x - size, y);
  context.fill();
}

// A text that fits, with an ellipsis if it had to be cut.
function clip(context, text, room) {
  if (room <= 0) return "";
  if (context.measureText(text).width <= room) return text;
  let low = 0, high = text.length;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (context.measureText(text.slice(0, middle) + "…").width <= room) low = middle; else high = middle - 1;
  }
  return low ? text.slice(0, low) + "…" : "";
}
