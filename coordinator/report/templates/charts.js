"use strict";
// Charts that answer: each figure that holds its numbers (data-panel) is drawn again as wide as it is, against the axis asked for.
// The charts that come with the page (charts.py) are what is seen without a script; both must look alike. Panels of a section share their axes and their zoom.
const charts = (() => {
  const COLOURS = 7, DASHES = ["", "7 3", "2 3", "9 3 2 3"]; // as in charts.py
  const UNITS = [[1e12, " T"], [1e9, " G"], [1e6, " M"], [1e3, " k"], [1, ""], [1e-3, " m"], [1e-6, " µ"], [1e-9, " n"], [1e-12, " p"]];
  const LETTER = 8.6, TOP = 28, BOTTOM = 44, RIGHT = 14, WINDOWS = [1, 5, 11, 21], LEAST_DRAG = 8;
  const chosen = new Map(); // what a reader has chosen, by section: a live page is replaced and keeps it
  const cursors = new Map(); // where values are read off, by figure
  const panels = new WeakMap();

  const escaped = (text) => text.replace(/[&<>"]/g, (one) => `&#${one.charCodeAt(0)};`);
  const signed = (text) => text.replace("-", "−");
  const trimmed = (text) => (text.includes(".") ? text.replace(/0+$/, "").replace(/\.$/, "") : text);
  const numeric = (value) => value !== null && Number.isFinite(value);
  const told = (value) => {
    if (!numeric(value)) return "–";
    const size = Math.abs(value);
    return signed(size >= 1e5 || size < 10 ? trimmed(String(Number(value.toPrecision(4)))) : value.toFixed(1));
  };

  const ticks = (low, high, most = 5) => {
    const power = 10 ** Math.floor(Math.log10((high - low) / most));
    for (const factor of [1, 2, 2.5, 5, 10, 20]) {
      const step = factor * power, first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
      if (last - first + 1 <= most) return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => (first + i) * step);
    }
    return [];
  };
  const decades = (low, high) => {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
      for (const factor of high / low < 100 ? [1, 2, 5] : [1]) found.push(factor * 10 ** power);
    const inside = found.filter((value) => value >= low * 0.999 && value <= high * 1.001);
    if (inside.length < 3) return ticks(low, high).filter((value) => value > 0);
    const every = Math.ceil(inside.length / 7);
    return inside.filter((_, place) => place % every === 0);
  };
  const words = (values, alone) => {
    const largest = Math.max(0, ...values.map(Math.abs));
    const [scale, unit] = largest && (largest < 1e-3 || largest >= 1e4) ? UNITS.find(([one]) => largest >= one) ?? UNITS.at(-1) : [1, ""];
    if (alone) return values.map((value) => words([value])[0]);
    let decimals = 0;
    while (decimals < 8 && values.some((v) => Math.abs(v / scale - Number((v / scale).toFixed(decimals))) > 1e-6 * largest / scale)) decimals++;
    return values.map((value) => (value ? signed(trimmed((value / scale).toFixed(decimals))) + unit : "0"));
  };

  // ---------------------------------------------------------------- what is drawn

  const drawn = (panel) => panel.over.find((one) => one.x === panel.state.x) ?? panel.over[0];
  const shown = (panel) => drawn(panel).lines.filter((line) => !panel.state.hidden.has(line.name));
  const smooth = (line, size) => {
    if (size < 2 || line.x.length < 2) return line;
    const y = line.y.map((_, end) => {
      const window = line.y.slice(Math.max(0, end - size + 1), end + 1);
      return window.every(numeric) ? window.reduce((sum, value) => sum + value, 0) / window.length : null;
    });
    return { ...line, y, low: [], high: [] };
  };
  const positive = (panel) => panel.over.every(({ lines }) => lines.every((line) =>
    [...line.y, ...line.low, ...line.high].every((value) => !numeric(value) || value > 0)));

  const frame = (panel, lines, wide, high) => {
    const { state } = panel, all = drawn(panel).lines.flatMap((line) => line.x).filter((x) => !state.logX || x > 0);
    let left = state.logX ? Math.min(...all) : 0, right = all.length ? Math.max(...all) : 1;
    if (right <= left) right = left + (Math.abs(left) || 1);
    if (panel.kind === "prices" && !state.logX) right *= 1.08;
    if (state.range) [left, right] = state.range;
    const values = lines.flatMap((line) => line.x.flatMap((x, i) =>
      (x < left || x > right ? [] : i === line.x.length - 1 || panel.kind === "prices" ? [line.y[i], line.low[i], line.high[i]] : [line.y[i]])));
    values.push(panel.limit, panel.optimum);
    const known = values.filter((value) => numeric(value) && (!state.logY || value > 0));
    let low = known.length ? Math.min(...known) : 0, top = known.length ? Math.max(...known) : 1;
    if (state.logY) { low /= 1.15; top *= 1.15; }
    else {
      const room = 0.06 * (top - low) || 0.06 * Math.abs(top) || 1;
      low = low >= 0 && low <= 0.4 * top ? 0 : low - room;
      top += room;
    }
    const ups = state.logY ? decades(low, top) : ticks(low, top), upWords = words(ups, state.logY);
    const edge = Math.max(40, ...upWords.map((one) => one.length * LETTER + 8));
    const of = (log) => (log ? Math.log10 : (value) => value);
    const place = (value, from, to, start, end, log) => start + (of(log)(value) - of(log)(from)) / (of(log)(to) - of(log)(from)) * (end - start);
    return { left, right, low, top, edge, wide, high, ups, upWords,
      x: (value) => place(value, left, right, edge, wide - RIGHT, state.logX),
      y: (value) => Math.min(2 * high, Math.max(-high, place(value, low, top, high - BOTTOM, TOP, state.logY))),
      back: (x) => {
        const part = (x - edge) / (wide - RIGHT - edge);
        return state.logX ? left * (right / left) ** part : left + part * (right - left);
      } };
  };

  const text = (content, x, y, anchor, kind = "tick") =>
    `<text class="${kind}" x="${x.toFixed(1)}" y="${y.toFixed(1)}" text-anchor="${anchor}">${escaped(content)}</text>`;

  const axes = (panel, at) => {
    const { state } = panel, base = at.high - BOTTOM;
    const acrosses = state.logX ? decades(at.left, at.right) : ticks(at.left, at.right, Math.max(3, Math.floor(at.wide / 90)));
    const acrossWords = words(acrosses, state.logX);
    return [
      ...at.ups.map((value, i) => `<path class="grid" d="M${at.edge} ${at.y(value).toFixed(1)}H${at.wide - RIGHT}"/>` +
        text(at.upWords[i], at.edge - 6, at.y(value) + 4, "end")),
      ...acrosses.map((value, i) => `<path class="axis" d="M${at.x(value).toFixed(1)} ${base}v4"/>` +
        text(acrossWords[i], Math.min(at.x(value), at.wide - 1 - acrossWords[i].length * LETTER / 2), base + 17, "middle")),
      `<path class="axis" d="M${at.edge} ${base}H${at.wide - RIGHT}"/>`,
      text(drawn(panel).title, at.wide - RIGHT, at.high - 8, "end", "title"), text(panel.y, 2, 14, "start", "title"),
    ].join("");
  };

  const dash = (style) => DASHES[(style % COLOURS + Math.floor(style / COLOURS)) % DASHES.length];
  const cap = (at, x, y) => `M${(at.x(x) - 3).toFixed(1)} ${at.y(y).toFixed(1)}h6`;
  const mark = (line, at, i) =>
    (numeric(line.low[i]) ? `<path class="whisker s${line.style % COLOURS}" d="M${at.x(line.x[i]).toFixed(1)} ${at.y(line.high[i]).toFixed(1)}V${at.y(line.low[i]).toFixed(1)}${cap(at, line.x[i], line.high[i])}${cap(at, line.x[i], line.low[i])}"/>` : "") +
    `<path class="mark s${line.style % COLOURS}${line.hollow ? " hollow" : ""}" transform="translate(${at.x(line.x[i]).toFixed(1)} ${at.y(line.y[i]).toFixed(1)})" d="${line.mark}"/>`;

  const isMarks = (panel, usable) => panel.kind === "prices" || usable.length < 2;
  const series = (panel, line, at) => {
    const usable = line.x.map((x, i) => i).filter((i) => numeric(line.y[i]) && (!panel.state.logX || line.x[i] > 0) && (!panel.state.logY || line.y[i] > 0));
    const point = (i, values) => `${at.x(line.x[i]).toFixed(1)} ${at.y(values[i]).toFixed(1)}`;
    if (isMarks(panel, usable)) // marks may reach beyond the axes, so there is nothing that cuts them off
      return { above: usable.filter((i) => line.x[i] >= at.left && line.x[i] <= at.right).map((i) => mark(line, at, i)).join("") };
    const banded = usable.filter((i) => numeric(line.low[i]) && numeric(line.high[i]) && (!panel.state.logY || line.low[i] > 0));
    const band = banded.length > 1
      ? `<path class="band s${line.style % COLOURS}" d="M${[...banded.map((i) => point(i, line.high)), ...banded.reverse().map((i) => point(i, line.low))].join("L")}Z"/>` : "";
    return { within: `${band}<path class="line s${line.style % COLOURS}" stroke-dasharray="${dash(line.style)}" d="M${usable.map((i) => point(i, line.y)).join("L")}"/>` };
  };

  const bestFor = (panel, lines) => {
    const best = [];
    if (panel.kind !== "prices" || panel.state.logX) return best;
    for (const line of lines.filter((one) => !one.hollow).sort((a, b) => a.x[0] - b.x[0] || b.y[0] - a.y[0]))
      if (!best.length || line.y[0] > best.at(-1).y[0]) best.push(line);
    return best;
  };

  // names beside marks, where there is room; the legend has them all
  const names = (lines, best, at) => {
    const seen = lines.filter((line) => numeric(line.y[0]) && line.x[0] >= at.left && line.x[0] <= at.right);
    const taken = seen.flatMap(({ x: [x], y: [y], low: [low], high: [high] }) => [
      [at.x(x) - 7, at.y(y) - 7, at.x(x) + 7, at.y(y) + 7],
      ...(numeric(low) ? [[at.x(x) - 3, at.y(high), at.x(x) + 3, at.y(low)]] : [])]);
    best.forEach((line, place) => {
      const y = at.y(line.y[0]), end = best[place + 1] ? at.x(best[place + 1].x[0]) : at.wide;
      taken.push([at.x(line.x[0]), y - 1, end, y + 1]);
    });
    return seen.map((line) => {
      const x = at.x(line.x[0]), y = at.y(line.y[0]), wide = line.name.length * LETTER;
      for (const [left, middle] of [[x + 10, y], [x - 10 - wide, y], [x + 6, y - 14], [x + 6, y + 14], [x - 6 - wide, y - 14], [x - 6 - wide, y + 14]]) {
        const box = [left, middle - 7, left + wide, middle + 7];
        const free = taken.every((one) => one[0] >= box[2] || one[2] <= box[0] || one[1] >= box[3] || one[3] <= box[1]);
        if (!free || box[0] < at.edge || box[2] > at.wide || box[1] < TOP || box[3] > at.high - BOTTOM) continue;
        taken.push(box);
        return text(line.name, left, middle + 4, "start", "name");
      }
      return "";
    }).join("");
  };

  const front = (best, at) => {
    if (!best.length) return "";
    const steps = best.slice(1).map((line) => `H${at.x(line.x[0]).toFixed(1)}V${at.y(line.y[0]).toFixed(1)}`).join("");
    return `<path class="front" d="M${at.x(best[0].x[0]).toFixed(1)} ${at.y(best[0].y[0]).toFixed(1)}${steps}H${at.wide - RIGHT}"/>`;
  };

  const draw = (figure, width) => {
    const panel = panels.get(figure), svg = figure.querySelector("svg.chart");
    const wide = width ?? svg.parentElement.clientWidth;
    if (!wide) return; // not seen now: drawn when it is
    const high = Math.round(Math.min(380, Math.max(230, 0.58 * wide)));
    const lines = shown(panel).map((line) => smooth(line, panel.state.window));
    const at = panel.at = frame(panel, lines, wide, high);
    const levels = [["limit", panel.limit], ["optimum", panel.optimum]].filter(([, value]) => numeric(value) && (!panel.state.logY || value > 0));
    const best = bestFor(panel, lines);
    const parts = lines.map((line) => series(panel, line, at));
    const inside = [
      ...levels.map(([kind, value]) => `<path class="${kind}" d="M${at.edge} ${at.y(value).toFixed(1)}H${wide - RIGHT}"/>`),
      front(best, at),
      ...parts.map((part) => part.within ?? ""),
    ].join("");
    const box = `x="${at.edge}" y="${TOP}" width="${wide - RIGHT - at.edge}" height="${high - BOTTOM - TOP}"`;
    const clipped = `<svg ${box} viewBox="${at.edge} ${TOP} ${wide - RIGHT - at.edge} ${high - BOTTOM - TOP}">${inside}</svg>`;
    svg.setAttribute("viewBox", `0 0 ${wide} ${high}`);
    svg.classList.add("drawn");
    svg.innerHTML = `${axes(panel, at)}${clipped}${parts.map((part) => part.above ?? "").join("")}${panel.kind === "prices" ? names(lines, best, at) : ""}<g class="cursor"></g>`;
    read(figure);
  };

  // ---------------------------------------------------------------- reading values

  const places = (panel) => [...new Set(shown(panel).flatMap((line) => line.x))].sort((a, b) => a - b)
    .filter((x) => x >= panel.at.left && x <= panel.at.right);

  const read = (figure) => {
    const panel = panels.get(figure), output = figure.querySelector("output.values"), at = panel.at;
    const every = places(panel), x = cursors.get(panel.id);
    const group = figure.querySelector("g.cursor");
    if (x === undefined || !every.length) { output.textContent = ""; if (group) group.innerHTML = ""; return; }
    const here = every.reduce((best, one) => (Math.abs(one - x) < Math.abs(best - x) ? one : best));
    const parts = [], dots = [];
    for (const line of shown(panel).map((one) => smooth(one, panel.state.window))) {
      const place = panel.kind === "prices" ? line.x.indexOf(here) : line.x.findLastIndex((one) => one <= here);
      if (place < 0) continue;
      const ends = numeric(line.low[place]) ? ` [${told(line.low[place])}, ${told(line.high[place])}]` : "";
      parts.push(`${line.name} ${told(line.y[place])}${ends}`);
      if (numeric(line.y[place])) dots.push(`<circle class="dot s${line.style % COLOURS}" cx="${at.x(here).toFixed(1)}" cy="${at.y(line.y[place]).toFixed(1)}" r="4"/>`);
    }
    const [position] = words([Number(here.toPrecision(4))]);
    output.textContent = `${drawn(panel).title} ${position}: ${parts.join("; ") || "nothing known yet"}`;
    group.innerHTML = `<path class="hair" d="M${at.x(here).toFixed(1)} ${TOP}V${at.high - BOTTOM}"/>${dots.join("")}`;
  };

  const move = (figure, steps) => {
    const panel = panels.get(figure), every = places(panel), now = cursors.get(panel.id);
    if (!every.length) return;
    const place = now === undefined ? (steps > 0 ? -1 : every.length) : every.findLastIndex((x) => x <= now);
    cursors.set(panel.id, every[Math.min(every.length - 1, Math.max(0, place + steps))]);
    read(figure);
  };

  // ---------------------------------------------------------------- zoom and copies

  const zoom = (figure, factor) => {
    const panel = panels.get(figure), { state, at } = panel;
    if (!factor) state.range = null;
    else {
      const whole = frame({ ...panel, state: { ...state, range: null } }, [], at.wide, at.high), middle = cursors.get(panel.id);
      const from = at.edge, to = at.wide - RIGHT, half = (to - from) / 2 / factor;
      const centre = middle !== undefined && middle >= at.left && middle <= at.right ? at.x(middle) : (from + to) / 2;
      const range = [Math.max(whole.left, at.back(centre - half)), Math.min(whole.right, at.back(centre + half))];
      state.range = range[0] <= whole.left && range[1] >= whole.right ? null : range;
    }
    redraw(figure.closest(".figures"));
  };

  const table = (panel) => {
    const { x, lines } = drawn(panel), quoted = (words) => `"${words.replaceAll('"', '""')}"`;
    const rows = lines.filter((line) => !panel.state.hidden.has(line.name)).flatMap((line) => line.x.map((place, i) =>
      (place < panel.at.left || place > panel.at.right ? null : [quoted(line.name), place, line.y[i] ?? "", line.low[i] ?? "", line.high[i] ?? ""].join(",")))).filter(Boolean);
    return { text: [["name", x, "y", "low", "high"].join(","), ...rows, ""].join("\n"), count: rows.length };
  };

  const copy = async (figure, button) => {
    const { text: content, count } = table(panels.get(figure));
    try {
      await navigator.clipboard.writeText(content);
      button.textContent = `copied ${count} rows`;
    } catch { // browsers may refuse: then the rows are shown, to be copied by hand
      let area = figure.querySelector("textarea");
      if (!area) figure.append(area = Object.assign(document.createElement("textarea"), { readOnly: true, rows: 8 }));
      area.setAttribute("aria-label", "data as CSV");
      area.value = content;
      area.select();
      button.textContent = `${count} rows, below`;
    }
    setTimeout(() => { button.textContent = "copy data"; }, 4000);
  };

  // ---------------------------------------------------------------- controls

  const element = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  const labelled = (words, control) => element("label", {}, words, " ", control);

  const tools = (grid, first, state) => {
    const id = (name) => `${grid.dataset.key}-${name}`, made = [];
    const choice = (name, words, options, value, choose) => {
      const select = element("select", { id: id(name) }, ...options.map(([key, told]) => element("option", { value: key, textContent: told })));
      select.value = value;
      select.addEventListener("change", () => { choose(select.value); redraw(grid); });
      made.push(labelled(words, select));
    };
    const check = (name, words, key, allowed) => {
      const box = element("input", { id: id(name), type: "checkbox", checked: state[key], disabled: !allowed });
      if (!allowed) box.title = "needs values above 0";
      box.addEventListener("change", () => { state[key] = box.checked; state.range = null; redraw(grid); });
      made.push(element("label", {}, box, " ", words));
    };
    const figures = [...grid.querySelectorAll("figure")];
    if (first.over.length > 1)
      choice("x", "against", first.over.map((one) => [one.x, one.title]), state.x, (value) => { state.x = value; state.range = null; for (const one of figures) cursors.delete(panels.get(one).id); });
    if (first.over[0].lines.some((line) => line.x.length >= 2 * WINDOWS[1]))
      choice("window", "smoothing", WINDOWS.map((size) => [size, size > 1 ? `over ${size} points` : "none"]), state.window, (value) => { state.window = Number(value); });
    check("log-x", "log x", "logX", true);
    check("log-y", "log y", "logY", figures.every((one) => positive(panels.get(one))));
    for (const [name, words, factor] of [["in", "zoom in", 2], ["out", "zoom out", 0.5], ["whole", "whole range", 0]]) {
      const button = element("button", { id: id(name), type: "button", textContent: words });
      button.addEventListener("click", () => zoom(figures[0], factor));
      made.push(button);
    }
    return element("div", { className: "tools" }, ...made, element("output", { className: "said" }));
  };

  const say = (grid, state) => {
    const told = [];
    if (state.window > 1) told.push(`Each point is the mean of itself and the ${state.window - 1} points before it; intervals are not drawn.`);
    if (state.logX) told.push("Points at 0 are not on a log axis.");
    if (state.range) told.push("A part of the axis is shown.");
    grid.previousElementSibling.querySelector("output.said").textContent = told.join(" ");
  };

  const redraw = (grid) => {
    say(grid, chosen.get(grid.dataset.key));
    for (const figure of grid.querySelectorAll("figure")) draw(figure);
  };

  const entry = (figure, item, state) => {
    const panel = panels.get(figure), name = item.dataset.name;
    const button = element("button", { type: "button", id: `${panel.id}-${item.dataset.place}` }, ...item.childNodes);
    const show = () => button.setAttribute("aria-pressed", String(!state.hidden.has(name)));
    button.addEventListener("click", () => {
      state.hidden.has(name) ? state.hidden.delete(name) : state.hidden.add(name);
      const grid = figure.closest(".figures");
      for (const one of grid.querySelectorAll(".legend li"))
        if (one.dataset.name === name) one.firstElementChild.setAttribute("aria-pressed", String(!state.hidden.has(name)));
      redraw(grid);
    });
    show();
    item.replaceChildren(button);
  };

  const listen = (figure) => {
    const svg = figure.querySelector("svg.chart"), panel = panels.get(figure);
    let from = null;
    const across = (event) => (event.clientX - svg.getBoundingClientRect().left) * panel.at.wide / svg.getBoundingClientRect().width;
    const clamp = (x) => Math.min(panel.at.wide - RIGHT, Math.max(panel.at.edge, x));
    svg.addEventListener("pointermove", (event) => {
      const x = clamp(across(event));
      cursors.set(panel.id, panel.at.back(x));
      read(figure);
      if (from !== null)
        figure.querySelector("g.cursor").innerHTML += `<rect class="span" x="${Math.min(from, x)}" y="${TOP}" width="${Math.abs(x - from)}" height="${panel.at.high - BOTTOM - TOP}"/>`;
    });
    svg.addEventListener("pointerdown", (event) => { if (event.button === 0) { from = clamp(across(event)); svg.setPointerCapture(event.pointerId); } });
    svg.addEventListener("pointerup", (event) => {
      if (from === null) return;
      const ends = [from, clamp(across(event))].sort((a, b) => a - b);
      from = null;
      if (ends[1] - ends[0] >= LEAST_DRAG) { panel.state.range = ends.map(panel.at.back); redraw(figure.closest(".figures")); }
      else read(figure);
    });
    svg.addEventListener("pointercancel", () => { from = null; });
    svg.addEventListener("pointerleave", () => { if (document.activeElement !== svg) { cursors.delete(panel.id); read(figure); } });
    svg.addEventListener("dblclick", () => zoom(figure, 0));
    svg.addEventListener("focus", () => { if (cursors.get(panel.id) === undefined) move(figure, -1); });
    svg.addEventListener("blur", () => { cursors.delete(panel.id); read(figure); });
    const keys = { ArrowLeft: () => move(figure, -1), ArrowRight: () => move(figure, 1), Home: () => move(figure, -Infinity),
      End: () => move(figure, Infinity), "+": () => zoom(figure, 2), "=": () => zoom(figure, 2), "-": () => zoom(figure, 0.5),
      0: () => zoom(figure, 0), Escape: () => zoom(figure, 0) };
    svg.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
      event.preventDefault();
      keys[event.key]();
    });
  };

  const begin = (grid) => {
    const figures = [...grid.querySelectorAll("figure[data-panel]")];
    if (!figures.length) return;
    const key = grid.dataset.key, read = figures.map((figure) => JSON.parse(figure.dataset.panel));
    if (!chosen.has(key)) chosen.set(key, { x: read[0].over[0].x, window: 1, logX: false, logY: false, range: null, hidden: new Set() });
    const state = chosen.get(key);
    figures.forEach((figure, place) => {
      panels.set(figure, { ...read[place], id: `${key}-${place}`, state });
      const svg = figure.querySelector("svg.chart"), copier = element("button", { type: "button", id: `${key}-${place}-copy`, textContent: "copy data" });
      Object.assign(svg, { tabIndex: 0, id: `${key}-${place}-chart` });
      svg.setAttribute("aria-describedby", "chart-keys");
      copier.addEventListener("click", () => copy(figure, copier));
      const output = element("output", { className: "values" });
      output.setAttribute("aria-live", "polite");
      svg.after(output, element("div", { className: "tools" }, copier));
      figure.querySelectorAll(".legend li").forEach((item, number) => { item.dataset.place = number; entry(figure, item, state); });
      listen(figure);
    });
    if (!figures.every((figure) => positive(panels.get(figure)))) state.logY = false;
    grid.before(tools(grid, read[0], state));
    redraw(grid);
    widths.observe(grid);
  };

  const every = (each) => { for (const grid of document.querySelectorAll(".figures[data-key]")) each(grid); };
  const widths = new ResizeObserver((entries) => { for (const { target } of entries) redraw(target); });
  addEventListener("beforeprint", () => every((grid) => grid.querySelectorAll("figure").forEach((figure) => draw(figure, 420))));
  addEventListener("afterprint", () => every(redraw));
  return { begin: () => every(begin) };
})();
