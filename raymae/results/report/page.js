"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const shares = JSON.parse(document.getElementById("importance").textContent);
  const {metric, mode, params, trials, references} = data;
  const count = trials.id.length;
  const STAGES = ["search", "replicate", "final"], STATUSES = ["completed", "stopped", "failed"];
  const {light: LIGHT, dark: DARK} = data.palette;
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "star", "triangle-down", "x", "pentagon", "hexagon"];
  const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
  const MOST_POINTS = 1500, MOST_LINES = 400, PAGE = 50, PRINTED_ROWS = 400, MINUS = "\u2212";
  const TICK_CHARACTER = 7, TICK_GAP = 10;  // pixels
  const names = [...new Set([...data.order, ...trials.arms])];
  // colour, symbol and dash of an arm are those of its place in the task, whatever its rank here
  const placeOf = (arm) => data.places[arm] ?? names.indexOf(arm);
  const armOf = (row) => trials.arms[trials.arm[row]];
  const $ = (id) => document.getElementById(id);

  // Plotly reads some tags in labels: everybody's text is made plain first
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const cut = (text, most = 28) => (text.length > most ? text.slice(0, most - 1) + "…" : text);
  const label = (text) => plain(cut(String(text)));
  const number = (value) => {
    if (value === null || value === undefined) return "–";
    if (typeof value !== "number") return String(value);
    const size = Math.abs(value);
    const text = value && (size < 1e-6 || size >= 1e7) ? value.toExponential(3) : String(Number(value.toPrecision(5)));
    return text.replace(/^-/, MINUS);
  };

  // --- theme
  const THEMES = ["system", "light", "dark"];
  const system = matchMedia("(prefers-color-scheme: dark)");
  let theme = "system";
  let printing = false;  // paper is white
  const isDark = () => !printing && (theme === "dark" || (theme === "system" && system.matches));
  const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const color = (arm) => (isDark() ? DARK : LIGHT)[placeOf(arm) % LIGHT.length];
  const symbol = (arm) => SYMBOLS[placeOf(arm) % SYMBOLS.length];
  function wear(name) {
    if (name === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
  }
  $("theme").addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    wear(theme);
    $("theme").textContent = `Theme: ${theme}`;
    redraw();
  });
  system.addEventListener("change", () => redraw());

  // --- filter
  const FIELDS = {
    trial: (row) => trials.id[row], arm: armOf, stage: (row) => STAGES[trials.stage[row]],
    status: (row) => STATUSES[trials.status[row]], [`val_${metric}`]: (row) => trials.val[row],
    [`test_${metric}`]: (row) => trials.test[row], wall_s: (row) => trials.wall[row],
  };
  params.forEach((param, index) => { FIELDS[param.name] = (row) => trials.params[index][row]; });
  const field = (name) => (Object.hasOwn(FIELDS, name) ? FIELDS[name] : undefined);
  const texts = Array.from({length: count}, (_, row) =>
    [...Object.values(FIELDS).slice(0, 4).map((get) => get(row)), trials.error[row]].join(" ").toLowerCase());
  const OPERATORS = {
    "<": (a, b) => a < b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, ">=": (a, b) => a >= b,
    "=": (a, b) => a === b, "!=": (a, b) => a !== b,
  };
  function condition(word) {
    const found = /^(.+?)(<=|>=|!=|<|>|=)(.*)$/.exec(word);
    const get = found && field(found[1]);
    if (!get) return (row) => texts[row].includes(word.toLowerCase());
    const [, , operator, wanted] = found, compare = OPERATORS[operator];
    return (row) => {
      const value = get(row);
      if (value === null || value === undefined) return operator === "!=";
      const numeric = typeof value === "number" && wanted !== "" && Number.isFinite(Number(wanted));
      return numeric ? compare(value, Number(wanted)) : compare(String(value).toLowerCase(), wanted.toLowerCase());
    };
  }
  let kept = Array.from({length: count}, (_, row) => row);
  function applyFilter() {
    const conditions = $("text").value.split(/\s+/).filter(Boolean).map(condition);
    const [status, stage] = [$("status").value, $("stage").value];
    const arms = new Set([...document.querySelectorAll("#arm-boxes input:checked")].map((box) => names[box.value]));
    kept = [];
    for (let row = 0; row < count; row++) {
      if ((!status || STATUSES[trials.status[row]] === status) && (!stage || STAGES[trials.stage[row]] === stage)
          && arms.has(armOf(row)) && conditions.every((holds) => holds(row))) kept.push(row);
    }
    const [searched, finals] = [0, 2].map((stage) => kept.filter((row) => trials.stage[row] === stage).length);
    $("shown").textContent = `${kept.length} of ${count} trials shown: ${searched} of the search, ${finals ? `${finals} finals, ` : ""}${kept.length - searched - finals} replicates. `
      + "Replicates stand in the table; figures draw trials of the search.";
    showTable();
    redraw(true);
  }
  names.forEach((arm, index) => {
    const box = document.createElement("input"), frame = document.createElement("label");
    box.type = "checkbox"; box.checked = true; box.value = index;
    frame.append(box, cut(arm));
    $("arm-boxes").append(frame);
  });
  let waiting = 0;
  const soon = () => { clearTimeout(waiting); waiting = setTimeout(applyFilter, 120); };
  $("filter").addEventListener("input", soon);
  $("filter").addEventListener("submit", (event) => { event.preventDefault(); applyFilter(); });

  // --- table
  const columns = [...Object.keys(FIELDS), "error"];
  const valueOf = (name, row) => (name === "error" && !Object.hasOwn(FIELDS, "error") ? trials.error[row] : FIELDS[name](row));
  const numeric = new Set([`val_${metric}`, `test_${metric}`, "wall_s", ...params.filter((p) => p.number).map((p) => p.name)]);
  let order = {name: `val_${metric}`, down: mode === "max"}, rowsShown = PAGE;
  const head = document.createElement("tr"), hidden = new Set(trials.error.some(Boolean) ? [] : ["error"]);
  columns.forEach((name, index) => {
    const box = document.createElement("input"), frame = document.createElement("label");
    box.type = "checkbox"; box.checked = !hidden.has(name); box.disabled = index === 0;  // a row keeps its name
    box.addEventListener("change", () => {
      if (box.checked) hidden.delete(name); else hidden.add(name);
      showTable();
    });
    frame.append(box, cut(name));
    $("column-boxes").append(frame);
  });
  $("columns").addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !$("columns").open) return;
    $("columns").open = false;
    $("columns").firstElementChild.focus();
  });
  columns.forEach((name) => {
    const cell = document.createElement("th"), button = document.createElement("button");
    cell.scope = "col"; cell.className = numeric.has(name) ? "n" : "";
    button.type = "button"; button.textContent = name;
    button.addEventListener("click", () => {
      order = {name, down: order.name === name ? !order.down : false};
      rowsShown = PAGE;
      showTable();
    });
    cell.append(button);
    head.append(cell);
  });
  $("table").tHead.append(head);
  function compareRows(a, b) {
    const [x, y] = [valueOf(order.name, a), valueOf(order.name, b)];
    const [noX, noY] = [x === null || x === "", y === null || y === ""];
    if (noX || noY) return noX - noY || a - b;
    const sign = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), "en", {numeric: true});
    return (order.down ? -sign : sign) || a - b;
  }
  function showTable() {
    $("columns").firstElementChild.textContent = `Columns (${columns.length - hidden.size} of ${columns.length})`;
    [...head.cells].forEach((cell, index) => {
      cell.hidden = hidden.has(columns[index]);
      if (columns[index] === order.name) cell.setAttribute("aria-sort", order.down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
      cell.firstChild.textContent = columns[index] + (columns[index] === order.name ? (order.down ? " ▼" : " ▲") : "");
    });
    const body = document.createElement("tbody"), sorted = [...kept].sort(compareRows);
    for (const row of sorted.slice(0, rowsShown)) {
      const line = body.insertRow();
      for (const name of columns) {
        if (hidden.has(name)) continue;
        const cell = line.insertCell(), value = valueOf(name, row);
        cell.textContent = name === "error" ? value : number(value);
        cell.className = numeric.has(name) ? "n" : name === "error" ? "error" : "";
      }
    }
    $("table").tBodies[0].replaceWith(body);
    $("more").hidden = sorted.length <= rowsShown;
    $("more").textContent = `Show ${Math.min(PAGE * 4, sorted.length - rowsShown)} more of ${sorted.length}`;
  }
  $("more").addEventListener("click", () => { rowsShown += PAGE * 4; showTable(); });

  // --- figures
  const axis = (title, more = {}) => ({
    title: {text: label(title), font: {size: 13}, standoff: 8}, gridcolor: ink("--line"), linecolor: ink("--quiet"),
    zerolinecolor: ink("--line"), tickfont: {size: 12}, automargin: true, exponentformat: "none", ...more,
  });
  const layout = (x, y, more = {}) => ({
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: {l: 50, r: 12, t: 12, b: 40},
    font: {color: ink("--ink"), family: "system-ui, sans-serif", size: 12}, xaxis: x, yaxis: y, hovermode: "closest",
    hoverlabel: {bgcolor: ink("--page"), bordercolor: ink("--quiet"), font: {color: ink("--ink")}, align: "left"},
    legend: {orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: {size: 12}}, dragmode: matchMedia("(hover: hover)").matches ? "pan" : false,
    modebar: {bgcolor: ink("--card"), color: ink("--quiet"), activecolor: ink("--ink")}, ...more,
  });
  const CONFIG = {
    responsive: true, displaylogo: false, scrollZoom: false,
    displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"], showSendToCloud: false, doubleClick: "reset",
  };
  const tip = "%{text}<extra></extra>";

  /** Round values of a logarithmic axis, as many as stand beside each other in its pixels, and beyond both ends. */
  function logTicks(values, width) {
    const positive = values.filter((value) => value > 0);
    const low = Math.log10(Math.min(...positive)), high = Math.log10(Math.max(...positive));
    const from = Math.floor(low) - 1, to = Math.ceil(high) + 1, perDecade = width / Math.max(0.1, 1.1 * (high - low));
    let found = [];
    for (const [steps, decades] of [[[1, 2, 5], 1], [[1, 3], 1], [[1], 1], [[1], 2], [[1], 4], [[1], 8]]) {
      found = [];
      for (let power = from; power <= to; power++) {
        if (power % decades === 0) steps.forEach((step) => found.push(Number(`${step}e${power}`)));
      }
      const room = found.slice(1).every((value, k) => Math.log10(value / found[k]) * perDecade
        > TICK_CHARACTER * (number(value).length + number(found[k]).length) / 2 + TICK_GAP);
      if (room) break;
    }
    const inside = found.filter((value) => Math.log10(value) >= low - 0.05 && Math.log10(value) <= high + 0.05);
    if (inside.length < 2) found = [Math.min(...positive), Math.max(...positive)].map((value) => Number(value.toPrecision(2)));
    return {tickvals: found, ticktext: found.map(number)};
  }
  const ordered = (values) => [...new Set(values.filter((value) => value !== null))]
    .sort((a, b) => String(a).localeCompare(String(b), "en", {numeric: true}));
  /** A parameter's axis: a choice has a place for each of its values, however far apart they are. */
  function paramAxis(param, values, width) {
    if (param.category) return axis(param.name, {type: "category", categoryorder: "array", categoryarray: ordered(values).map(shownValue), tickangle: 0});
    return axis(param.name, param.log ? {type: "log", tickangle: 0, ...logTicks(values, width)} : {type: "linear", nticks: 6, tickangle: 0});
  }
  const shownValue = (value) => label(typeof value === "number" ? number(value) : value);

  /** From the best score to where most scores lie: a few that diverged must not flatten the rest. */
  function scoreRange(scores) {
    const sorted = scores.filter((value) => value !== null).sort((a, b) => (mode === "min" ? a - b : b - a));
    if (sorted.length < 2 || sorted[0] === sorted[sorted.length - 1]) return undefined;
    const best = sorted[0], most = sorted[Math.ceil(sorted.length * 0.9) - 1], worst = sorted[sorted.length - 1];
    const cut = sorted.length >= 10 && best !== most && Math.abs(worst - best) > 2.5 * Math.abs(most - best);
    const end = cut ? most : worst, pad = 0.08 * (end - best), range = [best - pad, end + pad];
    return mode === "min" ? range : range.reverse();
  }
  const paramText = (row) => params.map((param, index) => trials.params[index][row] === null ? "" :
    `${label(param.name)} ${label(number(trials.params[index][row]))}`).filter(Boolean).join("<br>");
  const trialText = (row) => `<b>${label(trials.id[row])}</b> ${STATUSES[trials.status[row]]}<br>val ${label(metric)} `
    + `${number(trials.val[row])}<br>${paramText(row)}`;

  /** The best ones and an even share of the rest. */
  function some(rows, most) {
    if (rows.length <= most) return rows;
    const sorted = [...rows].sort((a, b) => (mode === "min" ? trials.val[a] - trials.val[b] : trials.val[b] - trials.val[a]));
    const best = sorted.slice(0, most / 3), rest = sorted.slice(most / 3), step = rest.length / (most - best.length);
    return [...best, ...Array.from({length: most - best.length}, (_, k) => rest[Math.floor(k * step)])];
  }
  const scored = () => kept.filter((row) => trials.stage[row] === 0 && trials.val[row] !== null);

  function drawResponse(index) {
    const param = params[index], values = trials.params[index];
    const all = scored().filter((row) => values[row] !== null), rows = some(all, MOST_POINTS), traces = [];
    for (const arm of names) {
      const mine = rows.filter((row) => armOf(row) === arm);
      if (!mine.length) continue;
      traces.push({
        type: "scatter", mode: "markers", name: label(arm), legendgroup: arm, x: mine.map((row) => param.category ? shownValue(values[row]) : values[row]),
        y: mine.map((row) => trials.val[row]), text: mine.map(trialText), hovertemplate: tip,
        marker: {size: rows.length > 400 ? 5 : 8, color: color(arm), opacity: rows.length > 400 ? 0.55 : 0.85,
                 symbol: mine.map((row) => symbol(arm) + (trials.status[row] === 1 ? "-open" : ""))},
      });
      const line = data.responses[param.name]?.[arm];
      if (line && kept.length === count) {
        traces.push({type: "scatter", mode: "lines", name: label(arm), showlegend: false, hoverinfo: "skip",
                     x: param.category ? line[0].map(shownValue) : line[0], y: line[1], line: {color: color(arm), width: 3}});
      }
    }
    const range = scoreRange(rows.map((row) => trials.val[row])), shapes = [], annotations = [];
    const inside = (score) => !range || (score >= Math.min(...range) && score <= Math.max(...range));
    for (const [arm, score] of Object.entries(references)) {
      shapes.push({type: "line", xref: "paper", x0: 0, x1: 1, y0: score, y1: score, line: {color: ink("--quiet"), dash: "dot"}, visible: inside(score)});
      annotations.push({xref: "paper", x: 1, y: score, visible: inside(score), text: label(arm), showarrow: false, xanchor: "right", yanchor: "bottom",
                        font: {size: 11, color: ink("--quiet")}});
    }
    return [traces, layout(paramAxis(param, all.map((row) => values[row]), $(`response-${index}`).clientWidth - 80),
                           axis(`val ${metric}`, range ? {range} : {}),
                           {shapes, annotations})];
  }

  // too narrow for names beside their intervals
  const isNarrow = (element) => element.clientWidth < 720;

  /** As high as its rows need: known before it is drawn, so that nothing below it moves when it comes into view. */
  function setHeight(element, {rows, left}) {
    element.style.height = rows.length ? `${(left ? 90 : 60) + (isNarrow(element) ? 48 : 34) * rows.length}px` : "";
  }

  /** Intervals below each other, as `intervals.py` placed them; a row beyond the axis is an arrow at its end. */
  function drawIntervals(element, panel) {
    const {rows, axis: [low, high]} = panel, narrow = isNarrow(element), last = rows.length - 1;
    const traces = rows.map((row, index) => ({
      type: "scatter", mode: "markers", x: [row.beyond ? (row.beyond < 0 ? low : high) : row.value], y: [index], showlegend: false, hovertemplate: tip,
      text: [`<b>${label(row.label)}</b><br>${number(row.value)}${row.interval ? `<br>${row.interval.map(number).join(" to ")}` : ""}<br>${label(row.text)}`],
      marker: {color: color(row.arm), size: row.primary ? 15 : 11, symbol: row.beyond ? `triangle-${row.beyond < 0 ? "left" : "right"}` : symbol(row.arm)},
      ...(row.interval && !row.beyond ? {error_x: {type: "data", array: [row.interval[1] - row.value], arrayminus: [row.value - row.interval[0]],
                                                   color: color(row.arm), thickness: row.primary ? 4 : 2, width: row.primary ? 8 : 5}} : {}),
    }));
    setHeight(element, panel);
    // on a phone the names stand above their intervals, which so have the whole width
    const texts = rows.map((row) => `<b>${label(row.label)}</b>   ${label(row.text)}`);
    const annotations = narrow ? texts.map((text, index) => ({xref: "paper", x: 0, xanchor: "left", y: index, yshift: 15, text, showarrow: false, font: {color: ink("--ink"), size: 12}})) : [];
    if (panel.left) {
      [[panel.left, "right", -8, "← ", ""], [panel.right, "left", 8, "", " →"]].forEach(([text, xanchor, xshift, before, after]) => annotations.push({
        x: 0, yref: "paper", y: 1, yanchor: "bottom", xanchor, xshift, showarrow: false, font: {size: 13, color: ink(text.endsWith("better") ? "--good" : "--bad")},
        text: `<b>${before}${narrow ? text.split(" ").pop() : label(text)}${after}</b>`}));
    }
    const shapes = panel.left ? [{type: "line", x0: 0, x1: 0, yref: "paper", y0: 0, y1: 1, line: {color: ink("--ink"), width: 1.5}, layer: "below"}] : [];
    if (last && rows[0]?.primary) shapes.unshift({type: "rect", xref: "paper", x0: 0, x1: 1, y0: -0.5, y1: 0.5, fillcolor: ink("--line"), opacity: 0.35, line: {width: 0}, layer: "below"});
    return [traces, layout(
      axis("", {range: panel.axis, nticks: narrow ? 4 : 7, tickangle: 0, zeroline: false}),
      axis("", {range: [last + 0.5, -0.5], tickvals: rows.map((_, index) => index), ticktext: texts, showticklabels: !narrow, showgrid: false, zeroline: false}),
      {shapes, annotations, margin: {l: 12, r: 16, t: panel.left ? 32 : 12, b: 30}})];
  }

  /** The difference between two arms against a parameter: a band around it, and both sides of 0 with their names. */
  function drawEffect(index) {
    const {param, arm, category, log, x, y, low, high, clear} = data.effects[index];
    const xs = category ? x.map(shownValue) : x, shade = color(arm), element = $(`effect-${index}`);
    const text = xs.map((value, k) => `<b>${label(param)} ${number(value)}</b> ${clear[k]}<br>${number(y[k])}, band ${number(low[k])} to ${number(high[k])}`);
    const points = {type: "scatter", name: label(arm), x: xs, y, text, hovertemplate: tip, showlegend: false, line: {color: shade, width: 3},
                    mode: category ? "markers" : "lines+markers",
                    marker: {size: 9, color: clear.map((word) => (word ? shade : ink("--card"))), line: {color: shade, width: 2}, symbol: symbol(arm)}};
    if (category) points.error_y = {type: "data", array: high.map((end, k) => end - y[k]), arrayminus: y.map((value, k) => value - low[k]), color: shade, thickness: 2, width: 6};
    const band = {type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false, x: [...xs, ...[...xs].reverse()], y: [...high, ...[...low].reverse()],
                  fill: "toself", fillcolor: `${shade}38`, line: {width: 0}};
    const [bottom, top] = [Math.min(0, ...low), Math.max(0, ...high)], pad = 0.12 * (top - bottom || 1);
    const [under, over] = mode === "min" ? ["better", "worse"] : ["worse", "better"];
    const side = (word, yPaper, yanchor) => ({xref: "paper", x: 1, xanchor: "right", yref: "paper", y: yPaper, yanchor, showarrow: false, bgcolor: ink("--card"),
                                              text: `<b>${label(cut(arm, 12))} ${word}</b>`, font: {size: 12, color: ink(word === "better" ? "--good" : "--bad")}});
    return [category ? [points] : [band, points], layout(
      paramAxis({name: param, category, log}, x, element.clientWidth - 80),
      axis(`difference in val ${metric}`, {range: [Math.min(bottom - pad, -0.2 * (top + pad)), Math.max(top + pad, 0.2 * (pad - bottom))], zeroline: false}),
      {shapes: [{type: "line", xref: "paper", x0: 0, x1: 1, y0: 0, y1: 0, line: {color: ink("--ink"), width: 1.5}, layer: "below"}],
       annotations: [side(over, 1, "top"), side(under, 0, "bottom")]})];
  }

  function drawImportance() {
    const arms = names.filter((arm) => shares[arm]);
    const all = [...new Set(arms.flatMap((arm) => Object.keys(shares[arm])))];
    all.sort((a, b) => Math.max(...arms.map((arm) => shares[arm][a] ?? 0)) - Math.max(...arms.map((arm) => shares[arm][b] ?? 0)));
    return [arms.map((arm) => ({type: "bar", orientation: "h", name: `${label(arm)}, n = ${data.scored[arm] ?? 0}`, y: all.map(label),
                                x: all.map((name) => shares[arm][name] ?? null), marker: {color: color(arm)},
                                hovertemplate: `${label(arm)}: %{y} %{x:.1%}<extra></extra>`})),
            layout(axis("share", {tickformat: ".0%", rangemode: "tozero"}), axis("", {type: "category"}), {barmode: "group"})];
  }

  function drawProgress(by) {
    const traces = names.filter((arm) => data.progress[arm]).map((arm) => ({
      type: "scatter", mode: "lines+markers", name: label(arm), x: data.progress[arm][by], y: data.progress[arm].best,
      line: {shape: "hv", color: color(arm), width: 2, dash: DASHES[placeOf(arm) % DASHES.length]},
      marker: {size: 6, symbol: symbol(arm), color: color(arm)},
      hovertemplate: `${label(arm)}: %{y} after %{x}<extra></extra>`,
    }));
    const range = scoreRange(Object.entries(data.progress).flatMap(([arm, line]) => (arm in references ? [] : line.best)));
    return [traces, layout(axis(by === "trials" ? "trials ended" : "compute, s"), axis(`best val ${metric}`, range ? {range} : {}))];
  }

  function drawLearning(phase) {
    const curves = data.learning.filter((curve) => curve.phase === phase), seen = new Set();
    const style = {best: {width: 3.5}, median: {width: 2, dash: "dash"}, sample: {width: 1}};
    const traces = ["sample", "median", "best"].flatMap((role) => curves.filter((curve) => curve.role === role)).map((curve) => {
      const first = curve.role === "best" && !seen.has(curve.arm);
      if (first) seen.add(curve.arm);
      return {type: "scatter", mode: "lines", name: label(curve.arm), legendgroup: curve.arm, showlegend: first, x: curve.epoch,
              y: curve.y, opacity: curve.role === "sample" ? 0.5 : 1, line: {color: color(curve.arm), ...style[curve.role]},
              text: curve.y.map((value, k) => `${label(curve.trial)} (${curve.role})<br>epoch ${number(curve.epoch[k])}: ${number(value)}`),
              hovertemplate: tip};
    });
    const range = phase === "finetune" ? scoreRange(curves.flatMap((curve) => curve.y)) : undefined;
    const title = {finetune: `val ${metric}`, pretrain: "pretraining loss", pretext: "skill of pretraining"}[phase];
    return [traces, layout(axis("epoch"), axis(title, range ? {range} : phase === "pretext" ? {zeroline: true, zerolinecolor: ink("--quiet")} : {}))];
  }

  /** Every axis scaled to 0…1, one trace a colour. */
  function drawParallel() {
    const all = scored().filter((row) => trials.status[row] === 0 && !(armOf(row) in references)), rows = some(all, MOST_LINES);
    $("parallel-note").textContent = all.length > rows.length ? `${rows.length} of ${all.length} trials drawn: the best and an even share of the rest.` : "";
    const axes = [{name: "arm", values: trials.arm.map((index) => trials.arms[index]), category: true},
                  ...params.map((param, index) => ({...param, values: trials.params[index]})),
                  {name: `val ${metric}`, values: trials.val, category: false, score: true}]
      .filter((one) => rows.some((row) => one.values[row] !== null));
    const tickvals = [], marks = [];
    for (const [place, one] of axes.entries()) {
      const values = rows.map((row) => one.values[row]).filter((value) => value !== null);
      if (!one.category) {
        const shape = one.log ? Math.log : (value) => value;
        let [low, high] = [Math.min(...values), Math.max(...values)];
        const range = one.score && scoreRange(values);
        if (range) [low, high] = [Math.max(low, Math.min(...range)), Math.min(high, Math.max(...range))];
        const [from, to] = [shape(low), shape(high)];
        one.at = (value) => (to > from ? Math.min(1, Math.max(0, (shape(value) - from) / (to - from))) : 0.5);
        marks.push([place, 0, number(Number(low.toPrecision(3)))], [place, 1, number(Number(high.toPrecision(3)))]);
      } else {
        const words = ordered(values).map(String);
        one.at = (value) => (words.length > 1 ? words.indexOf(String(value)) / (words.length - 1) : 0.5);
        words.slice(0, 12).forEach((word, k) => marks.push([place, words.length > 1 ? k / (words.length - 1) : 0.5, cut(word, 12)]));
      }
      tickvals.push(place);
    }
    const score = axes[axes.length - 1], bands = 6;
    const ramp = isDark() ? ["#44505f", "#54657d", "#5f83a8", "#63a5cf", "#7fd0e0", "#ffd166"] : ["#c3cad3", "#a7b6c9", "#7f9fc2", "#4f83b5", "#1e63a0", "#b23a00"];
    const traces = ramp.map((shade, k) => ({type: "scatter", mode: "lines", x: [], y: [], text: [], hovertemplate: tip, showlegend: false, connectgaps: false,
                                            line: {color: shade, width: k === bands - 1 ? 2.5 : 1}, opacity: k === bands - 1 ? 1 : 0.75}));
    const ranked = [...rows].sort((a, b) => (mode === "min" ? trials.val[b] - trials.val[a] : trials.val[a] - trials.val[b]));
    ranked.forEach((row, rank) => {
      const top = Math.max(1, Math.round(ranked.length / 20)), text = trialText(row);
      const band = rank >= ranked.length - top ? bands - 1 : Math.floor((rank / Math.max(1, ranked.length - top)) * (bands - 1));
      for (const [place, one] of axes.entries()) {
        const value = one.values[row];
        if (value === null) continue;  // parameters an arm does not have are passed over
        traces[band].x.push(place); traces[band].y.push(one.at(value)); traces[band].text.push(text);
      }
      traces[band].x.push(null); traces[band].y.push(null); traces[band].text.push("");
    });
    const annotations = marks.map(([x, y, text]) => ({x, y, text: plain(text), showarrow: false, xanchor: x === axes.length - 1 ? "right" : "left", xshift: x === axes.length - 1 ? -3 : 3,
                                                      font: {size: 11, color: ink("--ink")}, bgcolor: ink("--card"), opacity: 0.9}));
    const shapes = tickvals.map((x) => ({type: "line", x0: x, x1: x, y0: 0, y1: 1, line: {color: ink("--quiet"), width: 1}, layer: "below"}));
    return [score && rows.length ? traces : [], layout(
      axis("", {tickvals, ticktext: axes.map((one) => label(one.name)), showgrid: false, zeroline: false, range: [-0.15, axes.length - 0.85], tickangle: axes.length > 4 ? -30 : 0}),
      axis("", {visible: false, range: [-0.06, 1.06]}), {shapes, annotations, margin: {l: 8, r: 8, t: 8, b: 40}})];
  }

  function drawPareto() {
    const front = data.pareto.front;
    return [names.map((arm) => [arm, front.filter((point) => point.arm === arm)]).filter(([, mine]) => mine.length).map(([arm, mine]) => ({
      type: "scatter", mode: "markers", name: label(arm), x: mine.map((point) => point.cost), y: mine.map((point) => point.value),
      text: mine.map((point) => `<b>${label(point.trial_id)}</b><br>${number(point.value)} at ${number(point.cost)}`), hovertemplate: tip,
      marker: {color: color(arm), symbol: symbol(arm), size: 10},
    })), layout(axis(data.pareto.cost), axis(`val ${metric}`))];
  }

  const figures = new Map();  // element → {draw, filtered, drawn, stale}
  const add = (id, draw, filtered = false) => { if ($(id)) figures.set($(id), {draw, filtered, drawn: false, stale: false}); };
  params.forEach((param, index) => {
    const figure = document.createElement("figure"), plot = document.createElement("div");
    plot.className = "plot response"; plot.id = `response-${index}`; plot.dataset.label = `val ${metric} against ${param.name}`;
    figure.append(plot);
    $("response-plots").append(figure);
    add(plot.id, () => drawResponse(index), true);
  });
  if (!params.length) $("response-plots").textContent = "No parameter differs between the trials.";
  for (const id of ["plot-differences", "plot-arms"]) add(id, () => drawIntervals($(id), data[id.slice(5)]));
  data.effects.forEach((_, index) => add(`effect-${index}`, () => drawEffect(index)));
  add("plot-importance", drawImportance);
  add("plot-parallel", drawParallel, true);
  add("plot-by-trials", () => drawProgress("trials"));
  add("plot-by-compute", () => drawProgress("compute"));
  add("plot-finetune", () => drawLearning("finetune"));
  add("plot-pretrain", () => drawLearning("pretrain"));
  add("plot-pretext", () => drawLearning("pretext"));
  add("plot-pareto", drawPareto);

  function draw(element) {
    const figure = figures.get(element), [traces, look] = figure.draw();
    figure.stale = false;
    if (!traces.length) {
      if (figure.drawn) Plotly.purge(element);
      figure.drawn = false;
      element.textContent = element.dataset.missing || "Nothing to show yet.";
      element.classList.add("none");
      return;
    }
    element.classList.remove("none");
    if (!figure.drawn) element.textContent = "";
    figure.drawn = true;
    // what was drawn on the screen keeps that size on paper unless it is told another
    const paper = printing ? {width: element.clientWidth, height: element.clientHeight} : {};
    Plotly.react(element, traces, {...look, ...paper}, CONFIG);
    if (figure.printed && !printing) Plotly.Plots.resize(element);
    figure.printed = printing;
    element.tabIndex = 0;
    element.setAttribute("role", "group");
    element.setAttribute("aria-roledescription", "figure");
    element.setAttribute("aria-label", `${element.dataset.label}. Arrow keys walk through the points.`);
  }
  // the height of every figure, drawn or not, before anybody follows a link into the page
  for (const [element, figure] of figures) {
    if (data[element.id.slice(5)]?.axis) setHeight(element, data[element.id.slice(5)]);
    if (!figure.draw()[0].length) draw(element);
  }
  // a link from elsewhere was followed before this script gave the figures their heights
  document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView({behavior: "instant"});
  const inView = new Set();
  const observer = new IntersectionObserver((entries) => {
    for (const {target, isIntersecting} of entries) {
      if (!isIntersecting) { inView.delete(target); continue; }
      inView.add(target);
      if (!figures.get(target).drawn || figures.get(target).stale) draw(target);
    }
  }, {rootMargin: "300px"});
  function redraw(filteredOnly = false) {
    for (const [element, figure] of figures) {
      if (filteredOnly && !figure.filtered) continue;
      figure.stale = true;
      if (inView.has(element)) draw(element);
    }
  }

  // --- keyboard: figures are read point by point
  const spots = new WeakMap();
  for (const element of figures.keys()) {
    element.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey || event.target !== element || !figures.get(element).drawn) return;
      const step = {ArrowRight: 1, ArrowLeft: -1}[event.key], zoom = {"+": 0.7, "=": 0.7, "-": 1 / 0.7}[event.key];
      if (step) {
        const points = element.data.flatMap((trace, curveNumber) => trace.hoverinfo === "skip" ? [] :
          Array.from(trace.x, (x, pointNumber) => ({curveNumber, pointNumber, x})).filter((point) => point.x !== null));
        const spot = ((spots.get(element) ?? (step > 0 ? -1 : points.length)) + step + points.length) % points.length;
        spots.set(element, spot);
        const {curveNumber, pointNumber} = points[spot], trace = element.data[curveNumber];
        Plotly.Fx.hover(element, [{curveNumber, pointNumber}]);
        const text = Array.isArray(trace.text) && trace.text[pointNumber] || `${trace.name}: ${trace.x[pointNumber]}, ${trace.y[pointNumber]}`;
        $("said").textContent = text.replace(/<[^>]*>/g, " ").replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
      } else if (zoom) {
        const [low, high] = element._fullLayout.yaxis.range, middle = (low + high) / 2, half = (high - low) / 2 * zoom;
        Plotly.relayout(element, {"yaxis.range": [middle - half, middle + half]});
      } else if (event.key === "0") {
        draw(element);
        Plotly.relayout(element, {"xaxis.autorange": true, "yaxis.autorange": true}).then(() => draw(element));
      } else return;
      event.preventDefault();
    });
  }

  // --- paper: everything is drawn, in light colours and at the paper's width, and nothing is folded or cut
  let folded = [], shownBefore = PAGE;
  addEventListener("beforeprint", () => {
    printing = true;
    document.documentElement.classList.add("printing");
    wear("light");
    folded = [...document.querySelectorAll("details:not([open]):not(#columns)")];
    folded.forEach((one) => { one.open = true; });
    [shownBefore, rowsShown] = [rowsShown, Math.max(rowsShown, PRINTED_ROWS)];
    showTable();
    for (const element of figures.keys()) draw(element);
  });
  addEventListener("afterprint", () => {
    printing = false;
    document.documentElement.classList.remove("printing");
    wear(theme);
    folded.forEach((one) => { one.open = false; });
    rowsShown = shownBefore;
    showTable();
    redraw();
  });

  applyFilter();
  for (const element of figures.keys()) observer.observe(element);
  performance.mark("ready");
  document.documentElement.dataset.ready = "yes";
})();
