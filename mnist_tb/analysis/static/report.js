// The report: tables, curves, settings and pictures of the data in the page. charts.js stands before it in the same script.

const data = JSON.parse(document.getElementById('data').textContent);
const entries = (data.groups.length ? data.groups : data.runs).map((entry, i) => ({...entry, colour: colour(i), shown: true}));
const entryOf = ({line}) => entries[line];  // of a run, or of a row of a table
const redrawn = [];  // what is drawn anew when something is switched on or off
const refresh = () => { for (const draw of redrawn) draw(); };

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === 'class') element.className = value; else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}
function swatch(entry) {
  const mark = make('span', {class: 'swatch', 'aria-hidden': 'true'});
  mark.style.background = entry.colour;
  return mark;
}
function box(text, draw) {
  const input = make('input', {type: 'checkbox'});
  input.addEventListener('change', draw);
  return [input, make('label', {}, input, ` ${text}`)];
}

document.getElementById('about').textContent = data.about;

// ---- Runs, or groups of them, on and off
const chips = document.getElementById('chips');
const boxes = [];
for (const entry of entries) {
  const input = make('input', {type: 'checkbox'});
  input.checked = true;
  input.addEventListener('change', () => { entry.shown = input.checked; refresh(); });
  boxes.push([entry, input]);
  const seeds = data.groups.length ? [make('span', {class: 'faint'}, `${entry.seeds} seed${entry.seeds === 1 ? '' : 's'}`)] : [];
  chips.append(make('label', {class: 'chip', title: entry.runs?.join(', ') ?? entry.name}, input, swatch(entry), entry.name, ...seeds));
}
for (const [text, on] of entries.length > 2 ? [['all', true], ['none', false]] : []) {
  const button = make('button', {type: 'button'}, text);
  button.addEventListener('click', () => {
    for (const [entry, input] of boxes) { input.checked = entry.shown = on; }
    refresh();
  });
  chips.append(button);
}

// ---- Tables
function table(titles, rows) {
  const body = make('tbody');
  for (const each of rows) {
    const row = make('tr'), entry = entryOf(each);
    each.cells.forEach((cell, i) => {
      const td = make('td', cell === 'significant' ? {class: 'significant'} : {});
      if (i === 0) td.append(swatch(entry));
      td.append(cell);
      row.append(td);
    });
    redrawn.push(() => { row.hidden = !entry.shown; });
    body.append(row);
  }
  const head = make('tr', {}, ...titles.map((title) => make('th', {scope: 'col'}, title)));
  return make('div', {class: 'scroll'}, make('table', {}, make('thead', {}, head), body));
}
for (const section of data.sections) {
  const card = make('div', {class: 'card'}, table(section.titles, section.rows));
  if (section.summary) card.prepend(make('p', {class: 'summary'}, section.summary));
  if (section.note) card.append(make('div', {class: 'faint'}, section.note));
  document.getElementById('tables').append(make('h2', {}, section.data), card);
}

// ---- Curves: a chart a quantity; a line a run and split, or a group's mean with its band
const [each, eachLabel] = box('each seed', refresh);
const smoothing = make('input', {type: 'range', min: 0, max: 0.99, step: 0.01, value: 0, 'aria-label': 'smoothing'});
smoothing.addEventListener('input', refresh);

function panel(quantity, curves) {
  const isPositive = curves.every(({curve}) => curve.values.every((value) => value === null || value > 0));
  const scales = [['linear', 'linear'], ...(isPositive ? [['log', 'logarithmic']] : []),
    ...(isShare(curves.map(({curve}) => curve)) && /acc/i.test(quantity) ? [['percent', 'last percent']] : [])];
  const scale = make('select', {'aria-label': `scale of ${quantity}`}, ...scales.map(([value, text]) => make('option', {value}, text)));
  const [fromStart, startLabel] = box('from the start', () => draw());
  scale.addEventListener('change', () => draw());
  const holder = make('div', {class: 'plot'});
  const head = make('div', {class: 'head'}, make('h3', {}, quantity), make('span', {class: 'choices'}, startLabel, ' ', ...(scales.length > 1 ? [scale] : [])));
  const empty = make('p', {class: 'faint'}, 'Nothing is shown.');
  document.getElementById('charts').append(make('div', {class: 'card chart'}, head, holder, empty));
  const chart = new Chart(holder, quantity);
  function draw() {
    const seen = curves.filter(({entry, run}) => entry.shown && (!run || each.checked));
    empty.hidden = seen.length > 0;
    holder.hidden = !seen.length;
    if (!seen.length) return;
    const lines = seen.map(({entry, run, split, curve}) => curveLine({
      name: [run ?? entry.name, split].filter(Boolean).join(' '), colour: entry.colour, split, ...curve,
      ...(run ? {width: 1, alpha: 0.3, dots: 0} : {}),  // one of several seeds, behind their mean
    }));
    chart.show(lines, {scale: scale.value, fromStart: fromStart.checked, smoothing: +smoothing.value});
  }
  redrawn.push(draw);
}
const quantities = new Map();
function add(entry, curves, run) {
  for (const [tag, curve] of Object.entries(curves)) {
    const cut = tag.search(/\/(train|val|test)$/);
    const quantity = cut > 0 ? tag.slice(0, cut) : tag, split = cut > 0 ? tag.slice(cut + 1) : '';
    if (!quantities.has(quantity)) quantities.set(quantity, []);
    quantities.get(quantity).push({entry, run, split, curve});
  }
}
for (const entry of entries) add(entry, entry.curves);
if (data.groups.length) for (const run of data.runs) add(entryOf(run), run.curves, run.name);
const several = data.groups.some((group) => group.runs.length > 1);
document.getElementById('charts').before(
  make('p', {class: 'faint'}, `Thin lines: training; thick ones with points: validation; a large point: test. ${data.band} The scale fits the last three quarters of each curve, unless it is shown from the start. Drag to zoom, double-click to see all.`),
  make('p', {class: 'choices'}, ...(several ? [eachLabel, ' '] : []), make('label', {}, 'smoothing of training curves ', smoothing), ' ', make('output', {id: 'smoothed'})),
);
redrawn.push(() => {
  document.getElementById('smoothed').textContent = +smoothing.value ? `exponential moving average, weight ${smoothing.value}` : 'nothing is smoothed';
});
for (const [quantity, curves] of quantities) panel(quantity, curves);

// ---- Settings
const all = document.getElementById('all');
function settings() {
  const seen = data.runs.filter((run) => entryOf(run).shown);
  const keys = [...new Set(data.runs.flatMap((run) => Object.keys(run.settings)))];
  const chosen = keys.filter((key) => all.checked || new Set(seen.filter((run) => key in run.settings).map((run) => run.settings[key])).size > 1);
  const head = make('tr', {}, make('th', {scope: 'col'}, 'setting'), ...seen.map((run) => make('th', {scope: 'col'}, swatch(entryOf(run)), ' ' + run.name)));
  const rows = chosen.map((key) => make('tr', {}, make('td', {}, key), ...seen.map((run) => make('td', {}, run.settings[key] ?? ''))));
  const empty = rows.length ? [] : [make('p', {class: 'faint'}, 'No two of these runs differ in a setting.')];
  document.getElementById('settings').replaceChildren(...empty, make('table', {}, make('thead', {}, ...(rows.length ? [head] : [])), make('tbody', {}, ...rows)));
}
all.addEventListener('change', settings);
redrawn.push(settings);

// ---- Pictures
const pictures = document.getElementById('pictures');
for (const run of data.runs) {
  const figures = Object.entries(run.pictures).map(([tag, source]) =>
    make('figure', {}, make('img', {src: source, alt: `${tag} of ${run.name}`}), make('figcaption', {}, tag)));
  if (!figures.length) continue;
  const card = make('div', {class: 'card'}, make('h3', {}, swatch(entryOf(run)), ' ' + run.name), make('div', {class: 'pictures'}, ...figures));
  redrawn.push(() => { card.hidden = !entryOf(run).shown; });
  pictures.append(card);
}
if (!pictures.children.length) pictures.append(make('p', {class: 'faint'}, 'These runs have no pictures.'));
refresh();
